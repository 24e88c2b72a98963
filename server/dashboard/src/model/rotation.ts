// Who is asked next, when not all can be asked in one round. Pure.

export class Rotation {
  private round = 0
  private askedIn = new Map<string, number>()

  /** At most so many of these, those first that have waited longest. */
  take(ids: readonly string[], count: number): string[] {
    this.round++
    // Whoever is no candidate any more is forgotten.
    this.askedIn = new Map(ids.map((id) => [id, this.askedIn.get(id) ?? 0]))
    const taken = ids.toSorted((left, right) => this.lastRound(left) - this.lastRound(right)).slice(0, count)
    for (const id of taken) this.askedIn.set(id, this.round)
    return taken
  }

  private lastRound(id: string): number {
    return this.askedIn.get(id) ?? 0
  }
}
