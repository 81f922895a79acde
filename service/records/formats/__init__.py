"""What a record can be wrapped in: gzip, CloudEvents, events of KServe, Avro with a registry."""
