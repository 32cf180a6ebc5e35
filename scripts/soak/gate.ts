/**
 * Keeps GC of a network apart from its ADD and DEL: a runtime must not run them at the same time, and a list
 * of what is valid cannot have a pod that comes meanwhile. Source: CNI specification 1.1.0, section 2,
 * "Lifecycle & Ordering". What there holds for all networks is asked for within each here, as for the runtime
 * an operator's `cni gc` of another network does not exist.
 */
export class Gate {
  private inside = 0;
  private closed: Promise<void> | undefined;
  private onEmpty: () => void = () => {};

  /** Does something beside others, but not while {@link alone} is under way. */
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

  /** Does something while nothing else goes on. */
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

  /** Does something while nothing goes on behind any of them. */
  alone(work: () => Promise<void>): Promise<void> {
    return [...this.gates.values()].reduce((inner, gate) => () => gate.alone(inner), work)();
  }
}
