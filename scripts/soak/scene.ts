/** What the host has of a pod that is out of reach, so that the reason can be seen afterwards. */

import { tryRun } from '../../test/support/run.ts';
import type { Pod } from './pod.ts';

/** Commands whose output is searched for an address and a port. */
const searched = [
  'iptables-save',
  'ip6tables-save',
  'nft list ruleset',
  'ip neigh',
  'ip route',
  'ip -6 route',
];

/** @param address one of the pod's. @returns lines to read, each below what printed it. */
export async function sceneOf({ name, hostPort }: Pod, address: string): Promise<string> {
  const tells = new RegExp(
    `(?<![0-9a-f.:])${address.replaceAll('.', String.raw`\.`)}(?![0-9a-f.:])|\\b${hostPort}\\b`,
  );
  const found = await Promise.all(searched.map((line) => print(line, (text) => tells.test(text))));
  const all = ['ls /run/cni/firewall', ...['addr', 'route', 'neigh'].map((what) => `ip -n ${name} ${what}`)];
  return [...found, ...(await Promise.all(all.map((line) => print(line, Boolean))))].join('\n');
}

async function print(line: string, isShown: (text: string) => boolean): Promise<string> {
  const { stdout, stderr } = await tryRun(line.split(' '));
  const lines = `${stdout}${stderr}`.split('\n').filter(isShown);
  return [`${line}:`, ...lines.map((text) => `  ${text}`)].join('\n');
}
