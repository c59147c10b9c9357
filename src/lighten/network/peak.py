"""How much activation memory inference needs at once when every buffer is used again as soon as it is free."""

from lighten.network.record import Record


def peak_bytes(found: Record) -> int:
    """Most bytes of activations alive at any moment of the recorded pass, inputs and outputs with them.

    A stretch of memory lives from the operator that writes it to the last one that reads it. What works point by point
    writes over its input where nobody needs that any more.
    """
    last = {index: place for place, call in enumerate(found.operators) for index in (*call.reads, *call.writes)}
    last |= dict.fromkeys(found.results, len(found.operators))
    alive = set(found.inputs)
    peak = live = sum(found.storages[index] for index in alive)
    for place, call in enumerate(found.operators):
        new = [index for index in call.writes if index not in found.given and index not in alive]
        ending = [index for index in dict.fromkeys(call.reads + call.writes) if last[index] == place]
        free = [index for index in ending if index in alive and index not in found.results]
        written = sum(found.storages[index] for index in new)
        if call.is_pointwise:
            reused = sum(found.storages[index] for index in free[:1])
            peak = max(peak, live + max(0, written - reused))
        else:
            peak = max(peak, live + written)
        alive |= set(new)
        alive -= set(ending) - found.results
        live = sum(found.storages[index] for index in alive)
    return peak
