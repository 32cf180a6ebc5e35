/** What a host looks like, and how it differs later. */

import type { Host } from '../../test/support/host.ts';
import { files, iptablesSave, networkSnapshot } from '../../test/support/observe.ts';

/** A host as lines, each about something that a pod may leave behind. */
export type Picture = ReadonlySet<string>;

/** Locks, and hints of host-local: they stay, and their contents say nothing about a pod. */
const lasting = /\.lock$|\/lock$|\/last_reserved_ip\.\d+$|\/\.?(?:index|owners)[^/]*$/;

/** Takes a picture of a host. */
export async function takePicture(host: Host): Promise<Picture> {
  const { links, routes, rules, ruleset } = await networkSnapshot(host);
  const iptables = (
    await Promise.all(['filter', 'nat', 'mangle'].map((table) => iptablesSave(host, table)))
  ).flat();
  const qdiscs = (await host.run(['tc', 'qdisc', 'show'])).split('\n');
  const found = Object.keys({ ...files(host, '/var/lib/cni'), ...files(host, '/run/cni') });
  return new Set([
    ...(links as object[]).map((link) => `link ${JSON.stringify(link)}`),
    ...(routes as string[]).map((route) => `route ${route}`),
    ...(rules as string[]).map((rule) => `rule ${rule}`),
    ...(ruleset as string[]).map((line) => `nftables ${line.trim()}`),
    ...iptables.map((line) => `iptables ${line}`),
    ...qdiscs.filter(Boolean).map((qdisc) => `qdisc ${qdisc}`),
    ...found.filter((file) => !lasting.test(file)).map((file) => `file ${file}`),
  ]);
}

/** What only one of two pictures has. */
export function differences(before: Picture, now: Picture): { left: string[]; lost: string[] } {
  return {
    left: [...now].filter((line) => !before.has(line)),
    lost: [...before].filter((line) => !now.has(line)),
  };
}
