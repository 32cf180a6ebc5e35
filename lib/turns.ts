/** Work that is done in turn for each owner, while that of others goes on beside it. */
export class Turns {
  private readonly last = new Map<string, Promise<unknown>>();

  /**
   * Does a piece of work once what came before it for the same owner has ended, whatever became of that.
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
