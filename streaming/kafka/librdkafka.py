"""The client librdkafka, by confluent-kafka: compiled, faster, an extra to install (``leeway[librdkafka]``)."""

from streaming.kafka.librdkafka_consumer import LibrdkafkaConsumer
from streaming.kafka.librdkafka_producer import LibrdkafkaAppender, LibrdkafkaWriter
from streaming.kafka.librdkafka_reader import LibrdkafkaReader
from streaming.kafka.seam import Client

CLIENT = Client(
    consumer=LibrdkafkaConsumer, writer=LibrdkafkaWriter, appender=LibrdkafkaAppender, reader=LibrdkafkaReader
)
