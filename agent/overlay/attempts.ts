/** Work on this host that may fail, whatever etcd says: it is tried again with each check. */

import type { OverlayHost } from './host.ts';

/** Tells once why something cannot be done, however often it is tried. */
export class Attempts {
  private readonly host: OverlayHost;
  /** Why something cannot be done, by what it is. */
  private readonly troubles = new Map<string, string>();

  constructor(host: OverlayHost) {
    this.host = host;
  }

  /** Why something could not be done the last time; undefined when all is well. */
  get trouble(): string | undefined {
    return this.troubles.values().next().value;
  }

  /** Does something, or warns. @param what it is, the same each time. */
  async at(what: string, work: () => void | Promise<void>): Promise<void> {
    try {
      await work();
      this.troubles.delete(what);
    } catch (error) {
      const trouble = this.host.describe(error);
      if (trouble !== this.troubles.get(what)) this.host.warn(trouble);
      this.troubles.set(what, trouble);
    }
  }
}
