/** The living attachment beside those of the cases, and who is outside of the host and talks to it. */

import { Attachment } from '../support/chain.ts';
import type { Host, Pod, Teardown } from '../support/host.ts';
import { ping, serve, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { attachmentOptions, mapsPorts, type Subject } from './subjects.ts';

/** The address of the host as it is seen from outside, and that of who is there. */
const [hostAddress, outsideAddress] = ['192.0.2.1', '192.0.2.2'];

/** The port of the host that leads to the neighbour where the chain maps ports. */
const hostPort = 8081;

/** Main plugins whose containers reach what is outside over the host, and are reached, as the subjects have them. */
const routed = ['bridge', 'ptp'];

/** A living attachment, to which nothing may happen. */
export class Neighbour {
  readonly attachment: Attachment;
  private readonly outside: Outside;
  private constructor(attachment: Attachment, outside: Outside) {
    this.attachment = attachment;
    this.outside = outside;
  }

  /** Attaches it, and has it answer. */
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

  /** Whether a new connection from outside reaches it, and it reaches what is there. */
  async isConnected(): Promise<boolean> {
    if (!this.isRouted) return true;
    const { attachment, outside } = this;
    const [address, port] = mapsPorts(attachment.network) ? [hostAddress, hostPort] : [attachment.ip, 80];
    // From its address, by which "sbr" routes.
    return (
      (await outside.connects(address, port)) &&
      (await ping(attachment.pod, outsideAddress, '-I', attachment.ip))
    );
  }

  private get isRouted(): boolean {
    const types = this.attachment.network.plugins.map(({ type }) => type);
    // Within a VRF, only who is bound to it is reached, and reaches anybody.
    return routed.includes(types[0]!) && !types.includes('vrf');
  }
}

/** Somebody outside of the host, with a route by it to everything. */
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

  /** Sends a packet to a port of the host, so that the kernel notes where it leads it. */
  async sendUdp(port: number): Promise<void> {
    await this.pod.tryRun(['bash', '--norc', '-c', `echo hello > /dev/udp/${hostAddress}/${port}`]);
  }
}
