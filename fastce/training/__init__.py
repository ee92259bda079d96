"""Fine-tuning: examples, schedules and the loop behind `CrossEncoder.fit`."""
