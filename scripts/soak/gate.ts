/**
 * Keeps GC of a network apart from its ADD and DEL: a runtime must not run them at the same time, and a list
 * of valid attachments cannot contain a pod that is added meanwhile. Source: CNI specification 1.1.0, section
 * 2, "Lifecycle & Ordering". The specification asks for this across all networks; here it holds only within
 * each, as a runtime does not know of an operator's `cni gc` of another network.
 */
export class Gate {
  private inside = 0;
  private closed: Promise<void> | undefined;
  private onEmpty: () => void = () => {};

  /** Runs work beside that of others, but not while {@link alone} is under way. */
  async share<T>(work: () => Promise<T>): Promise<T> {
    while (this.closed) await this.closed;
    this.inside++;
    try {
      return await work();
    } finally {
      this.inside--;
      if (this.inside === 0) this.onEmpty();
    }
  }

  /** Runs work while nothing else is under way. */
  async alone(work: () => Promise<void>): Promise<void> {
    while (this.closed) await this.closed;
    const empty = this.inside === 0 ? undefined : new Promise<void>((resolve) => (this.onEmpty = resolve));
    this.closed = (async () => {
      await empty;
      await work();
    })().finally(() => {
      this.closed = undefined;
    });
    await this.closed;
  }
}

/** A gate for each of several things. */
export class Gates<T> {
  private readonly gates: ReadonlyMap<T, Gate>;

  constructor(keys: readonly T[]) {
    this.gates = new Map(keys.map((key) => [key, new Gate()]));
  }

  of(key: T): Gate {
    return this.gates.get(key)!;
  }

  /** Runs work while nothing else is under way behind any of them. */
  alone(work: () => Promise<void>): Promise<void> {
    return [...this.gates.values()].reduce((inner, gate) => () => gate.alone(inner), work)();
  }
}
