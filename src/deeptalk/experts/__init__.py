"""Which experts belong to which modality: measure the load, divide the experts, mask the routers."""

from deeptalk.experts.load import ExpertLoad, profile_load, read_load, write_load
from deeptalk.experts.mask import Routing, groups_of, router_mask
from deeptalk.experts.partition import (
    ExpertPartition,
    partition_by_load,
    random_partition,
    read_partition,
    write_partition,
)
from deeptalk.experts.rounds import PartitionRound, partition_in_rounds

__all__ = [
    "ExpertLoad",
    "ExpertPartition",
    "PartitionRound",
    "Routing",
    "groups_of",
    "partition_by_load",
    "partition_in_rounds",
    "profile_load",
    "random_partition",
    "read_load",
    "read_partition",
    "router_mask",
    "write_load",
    "write_partition",
]
