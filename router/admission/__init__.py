"""The queues before the workers: priorities, fair shares between tenants, deadlines."""
