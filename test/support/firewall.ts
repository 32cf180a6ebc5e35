/** Networks with the firewall plugin, and the plugin by itself. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { Attachment, type Conflist } from './chain.ts';
import type { Host } from './host.ts';
import { nftJson } from './observe.ts';
import { cleanEnv } from './run.ts';

/** A dual-stack bridge, named like the network, followed by the firewall plugin with the given keys. */
export function firewallNet(
  cniVersion: string,
  keys: object = {},
  bridge = 'br0',
  subnet = '10.5',
): Conflist {
  return {
    cniVersion,
    name: bridge,
    plugins: [
      {
        type: 'bridge',
        bridge,
        isDefaultGateway: true,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: `${subnet}.0.0/24` }], [{ subnet: `fd00:${subnet.slice(-1)}::/64` }]],
        },
      },
      { type: 'firewall', ...keys },
    ],
  };
}

/** Gives a host a firewall of nftables that drops forwarded packets, so that there is something to open. */
export async function dropForwarded(host: Host): Promise<void> {
  const base = 'type filter hook forward priority filter; policy drop;';
  await host.run(['nft', `add table inet filter; add chain inet filter forward { ${base} }`]);
}

/** A network without its firewall plugin. */
export function withoutFirewall(network: Conflist): Conflist {
  return { ...network, plugins: network.plugins.filter(({ type }) => type !== 'firewall') };
}

/** The firewall plugin alone, for a pod that is attached already. */
export function firewallAlone({ host, pod, network, options }: Attachment, keys: object): Attachment {
  return new Attachment(host, pod, { ...network, plugins: [{ type: 'firewall', ...keys }] }, options);
}

/**
 * Wraps the programs of iptables so that each call is noted in /run/calls.
 * @returns the environment that makes plugins use the wrappers.
 */
export async function logIptables(host: Host): Promise<{ PATH: string }> {
  const script = `#!/bin/sh\necho "\${0##*/} $*" >> /run/calls\nexec /usr/sbin/\${0##*/} "$@"\n`;
  await host.run(['mkdir', '/run/logged']);
  writeFileSync(host.file('/run/logged/xtables-nft-logged'), script, { mode: 0o755 });
  for (const name of ['iptables', 'ip6tables'])
    for (const suffix of ['', '-restore', '-save'])
      await host.run(['ln', '-s', 'xtables-nft-logged', `/run/logged/${name}${suffix}`]);
  return { PATH: `/run/logged:${cleanEnv.PATH}` };
}

/** The environment in which the scripts of {@link fakePrograms} are found. */
export const fakesFirst = { PATH: '/run/fake:/usr/sbin:/usr/bin' };

/** Puts a script in place of iptables programs. @returns the environment in which it is found. */
export async function fakePrograms(
  host: Host,
  script: string,
  names: readonly string[] = ['iptables', 'ip6tables'],
  suffixes: readonly string[] = ['', '-restore', '-save'],
): Promise<NodeJS.ProcessEnv> {
  mkdirSync(host.file('/run/fake'), { recursive: true });
  for (const name of names)
    for (const suffix of suffixes)
      writeFileSync(host.file(`/run/fake/${name}${suffix}`), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return fakesFirst;
}

/**
 * Cleans up, and tells a program of {@link fakePrograms} to go on, by "/run/go", once that has had the time not
 * to wait for it.
 */
export async function waitsForProgram(
  t: ExecutionContext,
  host: Host,
  cleanUp: () => Promise<unknown>,
): Promise<void> {
  let isOver = false;
  const cleaning = cleanUp().finally(() => {
    isOver = true;
  });
  await sleep(2000);
  t.false(isOver, 'it waits');
  writeFileSync(host.file('/run/go'), '');
  await cleaning;
}

/** The rules of each chain in their order, as iptables-save and nft list them. */
export async function rulesOf(host: Host, env: NodeJS.ProcessEnv = {}): Promise<Record<string, string[]>> {
  const rules: Record<string, string[]> = {};
  const note = (chain: string, text: string) => (rules[chain] = [...(rules[chain] ?? []), text]);
  for (const program of ['iptables-save', 'ip6tables-save'])
    for (const table of ['nat', 'filter'])
      for (const line of (await host.run([program, '-t', table], { env })).split('\n')) {
        const [, chain] = /^(?::|-A )(\S+)/.exec(line) ?? [];
        // Counters change all the time.
        if (chain) note(`${program} ${table} ${chain}`, line.replace(/ \[\d+:\d+\]$/, ''));
      }
  // So do counters of nftables; and handles are numbered by the kernel.
  const lasting = (key: string, value: unknown) => (['handle', 'counter'].includes(key) ? undefined : value);
  for (const object of await nftJson(host)) {
    const [[kind = '', one]] = Object.entries(object) as [[string, Record<string, unknown>]];
    if (Array.isArray(one.elem)) one.elem.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
    note([one.family, one.table, one.chain ?? one.name, kind].join(' '), JSON.stringify(object, lasting));
  }
  return rules;
}

/** Points the alternatives of a host to legacy iptables, which has a lock of its own. */
export async function useLegacyIptables(host: Host): Promise<void> {
  const script = `cp -a /etc/alternatives /run/alternatives
    for program in iptables ip6tables; do for action in '' -save -restore; do
      ln -sf /usr/sbin/xtables-legacy-multi /run/alternatives/$program$action
    done; done
    mount --bind /run/alternatives /etc/alternatives`;
  await host.run(['sh', '-ec', script]);
}
