/** The host that pods are attached to: what is on it beforehand, and how it is cleared again. */

import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import {
  masqueradeChain,
  masqueradeComment,
  portMapChain,
  portMapComment,
} from '../../lib/firewall/names.ts';
import { Address } from '../../lib/ip.ts';
import { addChain, addNamespace, type Contender, delChain, type Network, removeNamespace } from './call.ts';

export const subnet = '10.77.0.0/16';

/** Where network configurations are while a scenario runs. */
export const networksDir = '/run/bench-networks';

/** A typical pod network: a bridge with masquerading, and two host ports. @param port the first of these. */
export function podNetwork(port = 18080): Network {
  return {
    name: 'bench',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: 'host-local', subnet, routes: [{ dst: '0.0.0.0/0' }] },
      },
      {
        type: 'portmap',
        runtimeConfig: {
          portMappings: [
            { hostPort: port, containerPort: 80, protocol: 'tcp' },
            { hostPort: port + 1, containerPort: 443, protocol: 'tcp' },
          ],
        },
      },
    ],
  };
}

/** One pod comes and goes. @returns the times of each plugin, in the order of the chain. */
export async function liveOnce(
  network: Network,
  contender: Contender,
  containerId: string,
): Promise<{ added: number[]; deleted: number[] }> {
  const { name, netns } = addNamespace();
  const { times, attached } = await addChain(network, contender, { containerId, netns });
  const deleted = await delChain(network, contender, attached);
  removeNamespace(name);
  return { added: times, deleted };
}

/**
 * Gives the host other pods: their rules with two ports each, their reservations, and their ports on the
 * bridge.
 */
export function populate(pods: number): void {
  if (pods === 0) return;
  const first = Address.parse('10.77.128.0');
  const lines = ['*nat'];
  const links: string[] = [];
  for (let i = 0; i < pods; i++) {
    const owner = { network: 'bench', containerId: `present${i}` };
    const [masq, dn, ip] = [masqueradeChain(owner), portMapChain(owner), first.plus(i)];
    const quoted = (text: string) => `-m comment --comment "${text.replaceAll('"', '\\"')}"`;
    const ports = [20000 + 2 * i, 20001 + 2 * i];
    lines.push(
      `-N ${masq}`,
      `-A ${masq} -d ${subnet} -j ACCEPT ${quoted(masqueradeComment(owner))}`,
      `-A ${masq} ! -d 224.0.0.0/4 -j MASQUERADE ${quoted(masqueradeComment(owner))}`,
      `-A POSTROUTING -s ${ip}/32 -j ${masq} ${quoted(masqueradeComment(owner))}`,
      `-N ${dn}`,
      ...ports.flatMap((port) => [
        `-A ${dn} -p tcp --dport ${port} -s ${ip}/16 -j CNI-HOSTPORT-SETMARK`,
        `-A ${dn} -p tcp --dport ${port} -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK`,
        `-A ${dn} -p tcp --dport ${port} -j DNAT --to-destination ${ip}:80`,
      ]),
      `-A CNI-HOSTPORT-DNAT ${quoted(portMapComment(owner))} -p tcp -m multiport --destination-ports ${ports.join(',')} -j ${dn}`,
    );
    links.push(`link add name p${i} up master cni0 type veth peer name q${i}`);
    writeFileSync(`/var/lib/cni/networks/bench/${ip}`, `present${i}\r\neth0`);
  }
  execFileSync('iptables-restore', ['--noflush'], { input: `${lines.join('\n')}\nCOMMIT\n` });
  // A bridge takes 1,023 ports at most, and the pod that is measured needs one.
  execFileSync('ip', ['-batch', '-'], { input: links.slice(0, 1000).join('\n') });
}

/** Removes everything that pods and the scenario left on the host. */
export function clear(): void {
  for (const table of ['nat', 'filter']) {
    execFileSync('iptables', ['-t', table, '-F']);
    execFileSync('iptables', ['-t', table, '-X']);
  }
  // Not from PATH, where npm may have put another program of that name.
  execFileSync('/usr/sbin/nft', ['flush', 'ruleset']);
  const links = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).match(/(?<=: )p\d+(?=@)/g) ?? [];
  execFileSync('ip', ['-batch', '-'], {
    input: [...links, 'cni0'].map((name) => `link del ${name}`).join('\n'),
  });
  rmSync('/var/lib/cni/networks', { recursive: true, force: true });
}
