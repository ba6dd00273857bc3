RELAY_DELAY=60 relay.mesos --mesos_master 10.0.0.5:5050 \
  -m warehouse.metrics.queue_size -t 0 \
  --cooler 'exec ./consume --list "jobs"' --mesos_task_resources cpus=0.5,mem=128 --delay=30
