"""The client kafka-python: pure Python, nothing to compile."""

from streaming.kafka.broker import KafkaReader
from streaming.kafka.consumer import KafkaConsumer
from streaming.kafka.producer import KafkaAppender, KafkaWriter
from streaming.kafka.seam import Client

CLIENT = Client(consumer=KafkaConsumer, writer=KafkaWriter, appender=KafkaAppender, reader=KafkaReader)
