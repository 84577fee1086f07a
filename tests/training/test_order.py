"""The order of items in shards."""

from __future__ import annotations

import torch

from diffcr.training.data.order import Bucket, ShardedItems

COUNTS = (4, 4, 3, 4, 4, 2)
STARTS = (0, 4, 8, 11, 15, 19)
ONE = Bucket((2, 4, 4), STARTS, COUNTS)
OTHER = Bucket((2, 2, 8), (21, 26), (5, 5))


def draw(order: ShardedItems, batch: int, size: int = 4) -> list[int]:
    items: list[int] = order.draw(batch, size, torch.Generator()).indices.tolist()
    return items


def test_an_epoch_holds_every_item_once_and_another_one_in_another_order() -> None:
    order = ShardedItems(0, [ONE], window=2)
    seen = [item for batch in range(21) for item in draw(order, batch)]
    epochs = [seen[start : start + 21] for start in range(0, 84, 21)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_window_of_shards_is_mixed_and_no_more() -> None:
    order = ShardedItems(0, [ONE], window=2)
    epoch = [item for batch in range(21) for item in draw(order, batch, 1)]
    shard_of = {
        s + i: n for n, (s, c) in enumerate(zip(STARTS, COUNTS, strict=True)) for i in range(c)
    }
    place, changes = 0, 0
    while place < len(epoch):
        shards = {shard_of[epoch[place]]}
        while place < len(epoch) and len(shards | {shard_of[epoch[place]]}) <= 2:
            shards.add(shard_of[epoch[place]])
            place += 1
        changes += 1
    assert changes == 3


def test_a_place_depends_on_the_seed_and_the_batch_alone() -> None:
    order, again = (ShardedItems(1, [ONE, OTHER], 2) for _ in range(2))
    forwards = [draw(order, batch) for batch in range(40)]
    backwards = [draw(again, batch) for batch in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert forwards != [draw(ShardedItems(2, [ONE, OTHER], 2), batch) for batch in range(40)]


def test_a_micro_batch_is_of_one_bucket_and_all_items_are_met() -> None:
    order = ShardedItems(0, [ONE, OTHER], 2)
    met, buckets = set(), []
    for batch in range(40):
        drawn = order.draw(batch, 4, torch.Generator())
        inside = {item < 21 for item in drawn.indices.tolist()}
        assert inside == {drawn.latent_shape == ONE.latent_shape}
        met |= set(drawn.indices.tolist())
        buckets.append(inside.pop())
    assert met == set(range(31))
    # 21 and 10 items fill 5 and 2 micro-batches of a turn.
    assert all(sum(buckets[turn : turn + 7]) == 5 for turn in range(0, 35, 7))
