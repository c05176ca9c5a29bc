"""The wire: modules that protoc makes of the .proto files beside them (`make protos`)."""
