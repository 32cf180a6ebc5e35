/**
 * Keeps GC apart from ADD and DEL: a runtime must not run them at the same time. Source: CNI specification
 * 1.1.0, section 2, "GC".
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

  /** Does something while nothing else goes on. Who comes while somebody else does so only waits for that. */
  async alone(work: () => Promise<void>): Promise<void> {
    if (this.closed) return await this.closed;
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
