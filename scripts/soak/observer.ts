/**
 * Looks at pods from outside: `ip` tells which addresses they really have, and connections tell where packets
 * really go.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../../test/support/host.ts';
import type { IpLink } from '../../test/support/observe.ts';
import { outsideOf } from '../../test/support/outside.ts';
import { cleanEnv, run, tryRun } from '../../test/support/run.ts';
import type { Answer, Question } from './asker.ts';
import { reservationsOf } from './collection.ts';
import type { Findings } from './findings.ts';
import { type NetworkOptions, podPort, type SoakNetwork } from './networks.ts';
import type { Pod } from './pod.ts';
import type { Runtime } from './runtime.ts';
import { sceneOf } from './scene.ts';

/** The host's own addresses on the wire to the outside, which {@link outsideOf} gives it. */
const hostAddresses = { 4: '192.0.2.1', 6: 'fd00:2::1' };
/**
 * How often a pod is asked before it is considered out of reach. For some seconds, packets to an address may
 * go to the pod that had it before: for a second after learning a neighbour, the kernel accepts no other.
 */
const askAtMost = 8;
/** How long to wait between two looks at all pods, in milliseconds. */
const lookInterval = 1000;
const asker = join(import.meta.dirname, 'asker.ts');

/** Commands that have packets to pods dropped, except those from outside. */
const droppingRules: Readonly<Record<NetworkOptions['backend'], readonly string[]>> = {
  iptables: ['iptables', 'ip6tables'].flatMap((program) => [
    `${program} -P FORWARD DROP`,
    `${program} -A FORWARD -i wire -j ACCEPT`,
  ]),
  nftables: [
    'nft add table inet filter',
    'nft add chain inet filter forward { type filter hook forward priority filter ; policy drop ; }',
    'nft add rule inet filter forward iifname wire accept',
  ],
};

/** Someone who asks pods who they are. */
class Asker {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, (said: string) => void>();
  private last = 0;

  private constructor(child: ChildProcess) {
    this.child = child;
    child.on('message', ({ id, said }: Answer) => this.waiting.get(id)?.(said));
  }

  /** @param enter command line that leads into the namespace to ask from. */
  static async start(enter: readonly string[]): Promise<Asker> {
    const [file = '', ...args] = [...enter, process.execPath, '--no-warnings', asker];
    const child = spawn(file, args, { env: cleanEnv, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    return new Asker(child);
  }

  /** @returns what is said at an address, or why nothing is. */
  ask(address: string, port: number): Promise<string> {
    const id = ++this.last;
    return new Promise((resolve) => {
      this.waiting.set(id, (said) => {
        this.waiting.delete(id);
        resolve(said);
      });
      this.child.send({ id, address, port } satisfies Question);
    });
  }

  stop(): void {
    this.child.disconnect();
  }
}

/** What is observed, and who is told. */
export interface Observed {
  readonly runtime: Runtime;
  readonly findings: Findings;
  readonly networks: readonly SoakNetwork[];
}

/** Who asks a pod, and where. */
interface Way {
  readonly by: Asker;
  readonly at: string;
  readonly port: number;
}

/** The observer of a soak. */
export class Observer {
  private readonly runtime: Runtime;
  private readonly findings: Findings;
  private readonly networks: readonly SoakNetwork[];
  private readonly host: Asker;
  private readonly outside: Asker;

  private constructor({ runtime, findings, networks }: Observed, host: Asker, outside: Asker) {
    this.runtime = runtime;
    this.findings = findings;
    this.networks = networks;
    this.host = host;
    this.outside = outside;
  }

  /**
   * Connects a machine outside to the host. Packets from there are forwarded to everybody, but answers of
   * pods only if the firewall plugin lets them through.
   */
  static async start(host: Host, observed: Observed, { backend }: NetworkOptions): Promise<Observer> {
    const outside = await outsideOf(host);
    for (const line of droppingRules[backend]) await host.run(line.split(' '));
    const askers = await Promise.all([Asker.start(host.enter), Asker.start(outside.enter)]);
    return new Observer(observed, ...askers);
  }

  stop(): void {
    this.host.stop();
    this.outside.stop();
  }

  /** Checks that an attached pod has the address that the runtime was told, and is reachable. */
  async examine(pod: Pod): Promise<void> {
    const addresses = await addressesOf(pod);
    for (const other of this.runtime.attached.values())
      if (other !== pod && this.isAttached(pod))
        for (const address of other.addresses.filter((one) => addresses.includes(one)))
          this.findings.violation(`${address} is in ${other.name} and in ${pod.name}`);
    for (const address of pod.addresses) {
      if (!addresses.includes(address))
        this.findings.violation(
          `${pod.name} was given ${address}, and has ${addresses.join(', ') || 'none'}`,
        );
      await this.reach(pod, address, { by: this.host, at: address, port: podPort });
      const at = hostAddresses[isIPv6(address) ? 6 : 4];
      if (pod.hostPort !== undefined)
        await this.reach(pod, address, { by: this.outside, at, port: pod.hostPort });
    }
  }

  /** Looks at all pods again and again, until it is told to end. */
  async watch(isOver: () => boolean): Promise<void> {
    for (; !isOver(); await sleep(lookInterval)) {
      await this.compare();
      await this.lookForGone();
    }
  }

  /** Checks that no address is in two pods that are both attached before and after the look. */
  private async compare(): Promise<void> {
    const pods = [...this.runtime.attached.values()];
    const found = await Promise.all(pods.map(async (pod) => ({ pod, addresses: await addressesOf(pod) })));
    const holders = new Map<string, Pod>();
    for (const { pod, addresses } of found)
      if (this.isAttached(pod))
        for (const address of addresses) {
          const other = holders.get(address);
          if (other) this.findings.violation(`${address} is in ${other.name} and in ${pod.name}`);
          holders.set(address, pod);
        }
    this.findings.count('look at every pod');
  }

  /** Checks that no rule names pods whose DEL this suite did, and that they have no address reserved. */
  private async lookForGone(): Promise<void> {
    const gone = new Map(this.runtime.gone);
    const [ipv4, ipv6, ruleset] = await Promise.all(
      ['iptables-save -t nat', 'ip6tables-save -t nat', 'nft list ruleset'].map((line) =>
        run(line.split(' ')),
      ),
    );
    const leading = [...containersIn(`${ipv4}${ipv6}`), ...containersNamedIn(ruleset!)];
    const reserving = this.networks.flatMap(({ conflist }) =>
      reservationsOf(conflist.name).flatMap(({ owner }) =>
        owner ? [{ containerId: owner, isPortMap: false }] : [],
      ),
    );
    for (const { containerId, isPortMap } of [...leading, ...reserving]) {
      const entry = gone.get(containerId);
      if (!entry || this.runtime.gone.get(containerId) !== entry) continue;
      const { pod } = entry;
      const plugin = isPortMap ? 'portmap' : pod.network.conflist.plugins[0]!.type;
      if (pod.deletedBy.get(plugin) !== 'reference')
        this.findings.violation(
          `DEL of ${plugin} has left something of ${pod.name}. Its last calls: ${pod.lastCalls}`,
        );
    }
    for (const [containerId, entry] of gone)
      if (this.runtime.gone.get(containerId) === entry) this.runtime.gone.delete(containerId);
  }

  private isAttached(pod: Pod): boolean {
    return this.runtime.attached.get(pod.containerId) === pod;
  }

  /** @param address the pod's, which the question is to lead to. */
  private async reach(pod: Pod, address: string, { by, at, port }: Way): Promise<void> {
    // The reference announces no addresses, so the host would go on sending to the pod that had this one.
    if (pod.isConnectedByReference) await run(['ip', 'neigh', 'flush', 'to', address]);
    let said = '';
    for (let tries = 0; tries < askAtMost; tries++) {
      said = await by.ask(at, port);
      if (said === pod.name) {
        this.findings.count(tries === 0 ? 'pod reached' : 'pod reached late');
        return;
      }
    }
    if (this.runtime.isSpoiled(pod)) this.findings.count('pod that the reference took out of the firewall');
    else if (pod.isOfReferenceAlone) this.findings.count('pod of the reference alone out of reach');
    else
      this.findings.violation(
        `${pod.name} is asked at ${at}:${port}, and the answer is: ${said}. Its last calls: ${pod.lastCalls}\n${await sceneOf(pod, address)}`,
      );
  }
}

/** The containers that rules name in their comments, and whether the rules are of port mappings. */
function containersIn(rules: string): { containerId: string; isPortMap: boolean }[] {
  return [...rules.matchAll(/--comment "(dnat )?name: \\"[^"]*\\" id: \\"([^"\\]*)/g)].map(
    ([, dnat, containerId]) => ({ containerId: containerId!, isPortMap: dnat !== undefined }),
  );
}

/** The containers that this suite names in comments of nftables; those of iptables are quoted differently. */
function containersNamedIn(ruleset: string): { containerId: string; isPortMap: boolean }[] {
  return [...ruleset.matchAll(/comment "[^"\\]*\b(soak-container-\d+)\b/g)].map(([, containerId]) => ({
    containerId: containerId!,
    isPortMap: false,
  }));
}

/** Addresses of a pod's interface, as `ip` sees them; none when its namespace is gone. */
async function addressesOf({ name, ifname }: Pod): Promise<string[]> {
  const { exit, stdout } = await tryRun(['ip', '-j', '-n', name, 'addr', 'show', 'dev', ifname]);
  if (exit !== 0) return [];
  return (JSON.parse(stdout) as IpLink[])
    .flatMap(({ addr_info = [] }) => addr_info)
    .filter(({ scope }) => scope !== 'link')
    .map(({ local }) => local);
}
