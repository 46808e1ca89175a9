from pop3d.store_contract import ALICE, StoreContract
from pop3d.stores import Store
from pop3d.stores.memory import MemoryStore


class TestContract(StoreContract):
    async def make(self, messages: list[bytes]) -> Store:
        return MemoryStore({"alice": messages})


async def test_what_is_delivered_during_a_session_is_seen_by_the_next() -> None:
    store = MemoryStore({"alice": [b"one\n"]})
    drop = await store.open(ALICE, utf8=False)
    store.deliver("alice", b"two\n")
    assert len(drop.messages) == 1
    await drop.remove([1])
    await drop.close()
    assert store.messages("alice") == [b"two\r\n"]
