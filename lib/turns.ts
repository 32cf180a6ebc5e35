/** Work that is done in turn for each owner, concurrently with that of other owners. */
export class Turns {
  private readonly last = new Map<string, Promise<unknown>>();

  /**
   * Does a piece of work once the previous work for the same owner has ended, whether or not that failed.
   * @param key tells owners apart.
   * @returns what the work returns. @throws what it throws.
   */
  async take<T>(key: string, work: () => T | Promise<T>): Promise<T> {
    const before = this.last.get(key) ?? Promise.resolve();
    const now = before.then(work, work);
    this.last.set(key, now);
    try {
      return await now;
    } finally {
      if (this.last.get(key) === now) this.last.delete(key);
    }
  }
}
