/** The interfaces of the host, listed once for all calls of a read-only process. */

import { type Link, listLinks } from './link.ts';
import { openRouteSocket } from './route-socket.ts';
import type { Once } from './sharing.ts';

/** The interfaces of the host, as a read-only process has seen them. */
export interface SeenLinks {
  readonly all: readonly Link[];
  /** By their names and their alternative names. */
  readonly byName: ReadonlyMap<string, Link>;
  readonly byIndex: ReadonlyMap<number, Link>;
}

/** Lists the interfaces of the host once for all calls of a read-only process. */
export function seenLinks(once: Once): SeenLinks {
  return once('interfaces of the host', () => {
    using socket = openRouteSocket();
    const all = listLinks(socket);
    return {
      all,
      byName: new Map(all.flatMap((link) => [link.name, ...link.altNames].map((name) => [name, link]))),
      byIndex: new Map(all.map((link) => [link.index, link])),
    };
  });
}
