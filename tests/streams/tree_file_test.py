"""The tree in files is the tree in memory, also after a crash amid its writing."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from domain.merkle import Tree, leaf
from streams import checkpoints
from streams.tree_file import TreeFile
from tests.streams.cells import NAME, Site, drain, started, submit, world


def leaves(count: int) -> list[bytes]:
    return [leaf(str(n).encode()) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 31, 32, 33, 100])
def test_roots_and_proofs_are_those_of_the_tree_in_memory(tmp_path: Path, count: int) -> None:
    memory = Tree()
    for part in (leaves(count)[: count // 2], leaves(count)[count // 2 :]):
        file = TreeFile(tmp_path / "tree")
        for hash_ in part:
            file.append(hash_, 2 * len(file))
            memory.append(hash_)
        file.close()
    file = TreeFile(tmp_path / "tree")
    assert len(file) == len(file.tree) == count
    assert file.tree.root() == memory.root()
    for index in range(0, count, 7):
        assert file.tree.inclusion(index) == memory.inclusion(index)
        assert file.position(index) == 2 * index
        assert file.tree.consistency(index + 1) == memory.consistency(index + 1)
    file.close()


def test_what_a_crash_left_is_cut_to_what_is_whole(tmp_path: Path) -> None:
    wanted = leaves(77)
    memory = Tree()
    for hash_ in wanted:
        memory.append(hash_)
    chance = random.Random(1)
    for attempt in range(40):
        root = tmp_path / str(attempt)
        file = TreeFile(root)
        for number, hash_ in enumerate(wanted):
            file.append(hash_, number)
        file.close()
        for path in root.iterdir():
            if chance.random() < 0.4:
                size = path.stat().st_size
                with path.open("r+b") as cut:
                    cut.truncate(chance.randint(0, size))
        file = TreeFile(root)
        assert len(file) <= len(wanted)
        for number, hash_ in enumerate(wanted[len(file) :], len(file)):
            file.append(hash_, number)
        assert file.tree.root() == memory.root()
        assert [file.position(n) for n in range(77)] == list(range(77))
        file.close()


def test_a_ledgers_tree_follows_it_and_begins_anew_for_another_one(tmp_path: Path) -> None:
    asyncio.run(follow(tmp_path))


async def follow(path: Path) -> None:
    sites = []
    for name in ("one", "other"):
        (path / name).mkdir()
        site = Site(path / name)
        decider = await started(site)
        await site.send(*world(), submit("a"))
        await drain(decider)
        sites.append((site, decider))
    (one, decider), (other, _) = sites
    file = TreeFile(path / "tree")

    async def grow(site: Site) -> Tree:
        async for _ in checkpoints.grow_file(file, site.log, NAME, site.ring):
            pass
        memory = Tree()
        for found in await site.rounds():
            position = found.header.round - 1
            memory.append(leaf(await checkpoints.record_at(site.log, position)))
        assert file.tree.root() == memory.root()
        return memory

    await grow(one)
    await one.send(submit("b"))
    await drain(decider)
    size = len(file)
    tree = await grow(one)
    assert len(tree) > size
    claim = checkpoints.Checkpoint(NAME, len(tree), tree.root().hex(), 0)
    signed = checkpoints.sign(claim, one.signer)
    assert [n async for n in checkpoints.grow_file(file, one.log, NAME, one.ring, [signed])] == []
    wrong = replace(signed, checkpoint=replace(claim, root="00" * 32))
    again = checkpoints.grow_file(file, one.log, NAME, one.ring, [wrong])
    assert [n async for n in again] == list(range(1, len(tree) + 1)), "it is made anew"
    await grow(other)
    file.close()
    for site, _ in sites:
        site.database.close()
