"""Redis as queue, storage and switchboard: records, scripts, connections."""
