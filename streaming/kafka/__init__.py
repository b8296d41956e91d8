"""The log on Kafka: for more than one machine, and where outcomes come from elsewhere."""

from streaming.kafka.log import KafkaLog
from streaming.kafka.settings import KafkaSettings

__all__ = ["KafkaLog", "KafkaSettings"]
