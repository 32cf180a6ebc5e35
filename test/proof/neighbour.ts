/** The living attachment beside those of the cases, and a machine outside of the host that talks to it. */

import { Attachment } from '../support/chain.ts';
import type { Host, Pod, Teardown } from '../support/host.ts';
import { ping, serve, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { attachmentOptions, mapsPorts, type Subject } from './subjects.ts';

/** The addresses of the host and of the machine outside, on the wire between them. */
const [hostAddress, outsideAddress] = ['192.0.2.1', '192.0.2.2'];

/** The port of the host that leads to the neighbour where the chain maps ports. */
const hostPort = 8081;

/** Main plugins whose containers, as the subjects have them, the host routes to and from the outside. */
const routed = ['bridge', 'ptp'];

/** A living attachment, to which nothing may happen. */
export class Neighbour {
  readonly attachment: Attachment;
  private readonly outside: Outside;
  private constructor(attachment: Attachment, outside: Outside) {
    this.attachment = attachment;
    this.outside = outside;
  }

  /** Attaches it, and starts a server in it. */
  static async attach(t: Teardown, host: Host, subject: Subject, outside: Outside): Promise<Neighbour> {
    const attachment = new Attachment(
      ...([host, await host.addPod(), subject.network] as const),
      attachmentOptions(subject, 1),
    );
    await attachment.add();
    const neighbour = new Neighbour(attachment, outside);
    if (neighbour.isRouted) await serve(t, attachment.pod, 'tcp', 80, 'neighbour');
    await until('the neighbour is reached', () => neighbour.isConnected());
    return neighbour;
  }

  /** Whether a new connection from outside reaches it, and it reaches the outside. */
  async isConnected(): Promise<boolean> {
    if (!this.isRouted) return true;
    const { attachment, outside } = this;
    const [address, port] = mapsPorts(attachment.network) ? [hostAddress, hostPort] : [attachment.ip, 80];
    // Pings from its own address, as "sbr" routes by source address.
    return (
      (await outside.connects(address, port)) &&
      (await ping(attachment.pod, outsideAddress, '-I', attachment.ip))
    );
  }

  private get isRouted(): boolean {
    const types = this.attachment.network.plugins.map(({ type }) => type);
    // Within a VRF, only sockets that are bound to it can be reached, or reach anything.
    return routed.includes(types[0]!) && !types.includes('vrf');
  }
}

/** A machine outside of the host, with a default route through it. */
export class Outside {
  private readonly pod: Pod;

  private constructor(pod: Pod) {
    this.pod = pod;
  }

  static async of(host: Host): Promise<Outside> {
    const pod = await outsideOf(host);
    await pod.run(['ip', 'route', 'add', 'default', 'via', hostAddress]);
    return new Outside(pod);
  }

  /** Whether somebody accepts a TCP connection. */
  async connects(address: string, port: number): Promise<boolean> {
    const argv = ['timeout', '30', 'bash', '--norc', '-c', `: < /dev/tcp/${address}/${port}`];
    return (await this.pod.tryRun(argv)).exit === 0;
  }

  /** Sends a packet to a port of the host, so that the kernel tracks where it is translated to. */
  async sendUdp(port: number): Promise<void> {
    await this.pod.tryRun(['bash', '--norc', '-c', `echo hello > /dev/udp/${hostAddress}/${port}`]);
  }
}
