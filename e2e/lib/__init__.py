"""The stories of Hawser with real clients and real clouds. Read in this order:

machine   where things are on this machine, and an environment without its habits
running   processes that never outlive the run, conditions with deadlines, logs without surprises
clouds    SeaweedFS, versitygw and moto on loopback, with TLS under names of their own
hawser    the store, the sidecar and the commands, as their command lines promise
app       the application: knows S3 and nothing of Hawser; runs as a process of its own
ledger    what the application wrote, and comparing a cloud with it
demo      the story; faults/ its unhappy variants; stages the list that e2e/test walks

May not enter here: sleeping instead of waiting for a condition, a port or folder that another run
could have, traffic to anything but loopback, an application that is told of Hawser.
"""
