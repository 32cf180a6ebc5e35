/** Pods that replace others. */

import type { Host, Pod } from './host.ts';
import { link, until } from './observe.ts';

/** Replaces a pod that is gone by a new one, at the same path. */
export async function replace(host: Host, before: Pod): Promise<Pod> {
  // The kernel removes the interfaces of a namespace asynchronously, all at once: until then, their MAC
  // addresses and VLANs are in use.
  await host.run(['ip', 'link', 'add', 'last', 'type', 'veth', 'peer', 'name', 'last', 'netns', before.name]);
  await before.remove();
  await until('the interfaces of the old sandbox are gone', async () => !(await link(host, 'last')));
  await host.run(['ip', 'netns', 'add', before.name]);
  return before;
}
