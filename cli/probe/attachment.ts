/** What is tried for one attachment. */

import { Address } from '../../lib/ip.ts';
import { getLink } from '../../lib/kernel/link.ts';
import type { Netns } from '../../lib/kernel/netns.ts';
import { listRoutes, lookUpRoute } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import type { RunningAttachment } from '../inventory/running.ts';
import type { PublishedPort } from '../inventory.ts';
import { type Answer, type Protocol, portTaken } from './helper.ts';
import { apartBecause, hostIpOf, withoutHost } from './network.ts';
import type { Outcome } from './outcome.ts';
import type { Outside } from './outside.ts';
import { resolversOf } from './resolver.ts';
import type { Station } from './station.ts';

/** Where packets are sent from and to, besides the pod itself. */
export interface Surroundings {
  readonly host: Station;
  /** Made when the first published port is tried. */
  outside(): Outside;
  /** Whether an address is one of the host's own. */
  isOfHost(ip: string): boolean;
  /** Addresses by which the host is reached, at most one per family. */
  readonly hostAddresses: readonly string[];
  /** Another pod of the network. */
  readonly partner: { readonly one: RunningAttachment; readonly station: Station } | undefined;
  /** DNS server to ask; those that the pod asks when it is undefined. */
  readonly server: string | undefined;
  /** What DNS servers are asked for. */
  readonly dnsName: string;
  /** An address beyond the host to try; undefined for none. */
  readonly target: string | undefined;
}

/** A port that should be reachable. */
interface Goal {
  readonly probe: string;
  readonly to: string;
  readonly address: string;
  readonly port: number;
  readonly protocol: Protocol;
  /** What should be answered there; undefined when it is not known. */
  readonly greeting: string | undefined;
}

/** Tries what a pod must reach, and what must reach it. */
export class AttachmentProbe {
  readonly outcomes: Outcome[] = [];
  private readonly one: RunningAttachment;
  private readonly station: Station;
  private readonly around: Surroundings;
  /** MTU of the pod's interface, in bytes. */
  private readonly mtu: number;
  private readonly netns: Netns;
  /** Gateways of the pod's routes. */
  private readonly nextHops: readonly string[];
  private readonly greeting = crypto.randomUUID();
  /** Ports of the pod that the probe itself listens on, as "80/tcp". */
  private readonly listening = new Set<string>();

  constructor(one: RunningAttachment, netns: Netns, station: Station, around: Surroundings) {
    this.one = one;
    this.station = station;
    this.around = around;
    using socket = openRouteSocket(netns);
    this.mtu = getLink(socket, one.attachment.ifname)?.mtu ?? 0;
    this.netns = netns;
    this.nextHops = listRoutes(socket).flatMap(({ gw }) => (gw ? [`${gw}`] : []));
  }

  async run(): Promise<void> {
    await this.gateways();
    await this.otherPod();
    await this.hostAndBack();
    for (const port of this.one.attachment.ports) await this.publishedPort(port);
    await this.dns();
    await this.beyond();
  }

  private async gateways(): Promise<void> {
    const gateways = [
      ...new Set((this.one.result?.ips ?? []).flatMap(({ gateway }) => (gateway ? [`${gateway}`] : []))),
    ];
    if (gateways.length === 0) this.skip('gateway', '-', 'the network gives no gateway');
    for (const address of gateways)
      if (this.nextHops.includes(address) || this.around.isOfHost(address))
        await this.ping('gateway', address);
      else this.skip('gateway', address, 'no route of the pod leads by it');
  }

  private async otherPod(): Promise<void> {
    const { partner } = this.around;
    const why = apartBecause(this.one) ?? (partner ? undefined : 'the network has no other running pod');
    if (why !== undefined || !partner) return this.skip('other pod', '-', why ?? '');
    const port = await partner.station.ask({
      kind: 'listen',
      protocol: 'tcp',
      port: 0,
      greeting: this.greeting,
    });
    for (const address of partner.one.attachment.ips.filter((ip) => this.speaks(ip))) {
      const to = `${partner.one.name} ${address}`;
      if (!port.ok) this.skip('other pod', to, `the probe cannot listen there: ${port.detail}`);
      else await this.connect(this.station, 'other pod', to, address, Number(port.detail));
      await this.wholePackets(address, to);
    }
  }

  private async hostAndBack(): Promise<void> {
    const { host, hostAddresses } = this.around;
    const why = withoutHost(this.one);
    const own = this.one.attachment.ips;
    if (why !== undefined) {
      this.skip('host', hostAddresses.join(' ') || '-', why);
      this.skip('pod', `${this.one.name} ${own.join(' ')}`, why, 'host');
      return;
    }
    const addresses = hostAddresses.filter((ip) => this.speaks(ip));
    if (addresses.length === 0)
      this.skip('host', '-', 'the host has no address but on the networks of its pods');
    for (const address of addresses)
      if (this.hasRoute(address)) await this.ping('host', address);
      else this.skip('host', address, 'no route of the pod leads there');
    const port = await this.station.ask({
      kind: 'listen',
      protocol: 'tcp',
      port: 0,
      greeting: this.greeting,
    });
    for (const address of own) {
      const to = `${this.one.name} ${address}`;
      if (!port.ok) this.skip('pod', to, `the probe cannot listen there: ${port.detail}`, 'host');
      else await this.connect(host, 'pod', to, address, Number(port.detail), 'host');
    }
  }

  /** Tries a published port from outside, from the host, and from the pod itself. */
  private async publishedPort({ hostPort, containerPort, protocol }: PublishedPort): Promise<void> {
    const label = `${hostPort}/${protocol}`;
    if (protocol !== 'tcp' && protocol !== 'udp')
      return this.skip(`port ${label}`, '-', `${protocol} is not probed`);
    const why = await this.listenFor(containerPort, protocol);
    if (why !== undefined && (why !== portTaken || protocol === 'udp'))
      return this.skip(
        `port ${label}`,
        '-',
        why === portTaken
          ? 'a program in the pod has the port, and UDP does not tell whether it was reached'
          : why,
      );
    const only = hostIpOf(this.one, hostPort, protocol);
    const addresses = (only === undefined ? this.around.hostAddresses : [only]).filter((ip) =>
      this.speaks(ip),
    );
    if (addresses.length === 0)
      return this.skip(`port ${label}`, '-', 'the host has no address to reach it by');
    const greeting = why === portTaken ? undefined : this.greeting;
    for (const address of addresses) {
      const to = `${address.includes(':') ? `[${address}]` : address}:${hostPort}`;
      const reach = (from: Station, name: string, probe: string) =>
        this.reach(from, { probe, to, address, port: hostPort, protocol, greeting }, name);
      if (Address.parse(address).isLoopback) {
        await reach(this.around.host, 'host', `port ${label}`);
        continue;
      }
      const outside = this.around.outside();
      if (outside.families.has(Address.parse(address).family))
        await reach(outside.station, 'outside', `port ${label}`);
      else this.skip(`port ${label}`, to, 'no subnet is free for a stand-in of a machine outside', 'outside');
      await reach(this.around.host, 'host', `port ${label}`);
      if (this.hasRoute(address)) await reach(this.station, this.one.name, `port ${label}, hairpin`);
      else this.skip(`port ${label}, hairpin`, to, 'no route of the pod leads there');
    }
  }

  /** Listens in the pod. @returns why that is not possible; undefined if it is. */
  private async listenFor(port: number, protocol: Protocol): Promise<string | undefined> {
    const key = `${port}/${protocol}`;
    if (this.listening.has(key)) return undefined;
    const { ok, detail } = await this.station.ask({
      kind: 'listen',
      protocol,
      port,
      greeting: this.greeting,
    });
    if (ok) this.listening.add(key);
    return ok ? undefined : detail;
  }

  private async dns(): Promise<void> {
    const { server, dnsName: name } = this.around;
    const { servers, source } =
      server === undefined ? resolversOf(this.one) : { servers: [server], source: '--dns' };
    const own = servers.filter((ip) => this.speaks(ip));
    if (own.length === 0)
      this.skip('DNS', servers.join(' ') || '-', `no server that the pod could ask in ${source}`);
    for (const ip of own) {
      const answer = await this.station.ask({ kind: 'resolve', server: ip, name });
      this.record('DNS', ip, { ...answer, detail: `${answer.detail} (server of ${source})` });
    }
  }

  private async beyond(): Promise<void> {
    const { target } = this.around;
    if (target === undefined) return this.skip('beyond', '-', 'no address is given with --to');
    if (!this.speaks(target)) return this.skip('beyond', target, 'the pod has no address of that family');
    await this.ping('beyond', target);
  }

  /** Sends an echo request, and then one that fills the largest packet. */
  private async ping(probe: string, address: string): Promise<void> {
    const answer = await this.station.ask({ kind: 'ping', address });
    this.record(probe, address, answer);
    if (answer.ok) await this.wholePackets(address, address);
  }

  /** Whether the largest packets that the pod sends arrive in one piece, and their answers too. */
  private async wholePackets(address: string, to: string): Promise<void> {
    const fits = (bytes: number) => this.station.ask({ kind: 'ping', address, bytes, whole: true });
    // The MTU of the loopback interface exceeds the largest message.
    const largest = Math.min(this.mtu, 65_000);
    const answer = await fits(largest);
    if (answer.ok) return this.record('path MTU', to, { ok: true, detail: `${largest} bytes` });
    let [low, high] = [0, largest];
    for (const step of [1280, 576]) if (step < largest && low === 0 && (await fits(step)).ok) low = step;
    if (low === 0)
      return this.skip('path MTU', to, `not even small echo requests are answered: ${answer.detail}`);
    // Ten or so more tries would find the limit to the byte, but take too long; its rough size suffices.
    for (const step of [1400, 1450, 1492, 1500, 8900]) {
      if (step <= low || step >= high) continue;
      if ((await fits(step)).ok) low = step;
      else high = step;
    }
    this.record('path MTU', to, {
      ok: false,
      detail: `packets of ${low} bytes arrive, those of ${high} do not (${answer.detail}); the pod sends up to ${largest}`,
    });
  }

  private async connect(
    from: Station,
    probe: string,
    to: string,
    address: string,
    port: number,
    name?: string,
  ): Promise<void> {
    await this.reach(from, { probe, to, address, port, protocol: 'tcp', greeting: this.greeting }, name);
  }

  private async reach(from: Station, goal: Goal, name?: string): Promise<void> {
    const { probe, to, address, port, protocol, greeting } = goal;
    const task = { kind: 'connect', protocol, address, port } as const;
    const answer = await from.ask(greeting === undefined ? task : { ...task, greeting });
    this.record(probe, to, answer, name);
  }

  private record(probe: string, to: string, { ok, detail }: Answer, from = this.one.name): void {
    this.outcomes.push({ from, probe, to, state: ok ? 'ok' : 'failed', detail });
  }

  private skip(probe: string, to: string, why: string, from = this.one.name): void {
    this.outcomes.push({ from, probe, to, state: 'untried', detail: why });
  }

  private hasRoute(ip: string): boolean {
    using socket = openRouteSocket(this.netns);
    try {
      return lookUpRoute(socket, Address.parse(ip)) !== undefined;
    } catch (error) {
      if (isKernelError(error, 'ENETUNREACH', 'EHOSTUNREACH')) return false;
      throw error;
    }
  }

  /** Whether the pod has an address of the same family. */
  private speaks(ip: string): boolean {
    return this.one.attachment.ips.some((own) => own.includes(':') === ip.includes(':'));
  }
}
