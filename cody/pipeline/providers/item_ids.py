"""Item ids that are one item's alone in a Response of several requests."""

from __future__ import annotations

from cody.contracts.stream_events import ItemCancelled, ItemDelta, ItemDone, ItemError, ItemStart, Payload


class ItemIds:
    """Renames an item whose id an earlier request's answer has had; the reducer would take it for one that is closed.

    Servers that speak a provider's protocol need not give their items ids (Cody then counts them, in each answer from
    0), and some give every answer the same ones.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._names: dict[str, str] = {}

    def next_answer(self) -> None:
        """Another request's answer begins: its ids are its own."""
        self._names = {}

    def unique(self, payload: Payload) -> Payload:
        """The payload, of an item of this answer, with the id that is the item's alone."""
        match payload:
            case ItemStart(item_id=id) | ItemDelta(item_id=id) | ItemError(item_id=id) | ItemCancelled(item_id=id):
                name = self._name(id)
                return payload if name == id else payload.model_copy(update={"item_id": name})
            case ItemDone(item_id=id, final_item=item):
                name = self._name(id)
                return (
                    payload if name == id else ItemDone(item_id=name, final_item=item.model_copy(update={"id": name}))
                )
            case _:
                return payload

    def _name(self, id: str) -> str:
        if id not in self._names:
            name, number = id, 2
            while name in self._taken:
                name, number = f"{id}_{number}", number + 1
            self._taken.add(name)
            self._names[id] = name
        return self._names[id]
