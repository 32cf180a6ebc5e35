/** Real DHCP servers outside of a host, and the daemon on it. */

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { runNetworkVerb, sample } from './chain.ts';
import { type Host, makeHost, type Namespace, type Pod, type Teardown } from './host.ts';
import { until } from './observe.ts';
import { addMaster } from './outside.ts';
import { suites } from './plugin.ts';
import { cleanEnv } from './run.ts';

/** The sample network that uses DHCP. */
export const dhcpSample = '71-dhcp.conflist';

/** A host whose "eth0" leads to a neighbour, on which the servers run. */
export async function dhcpNetwork(
  t: Teardown,
  options: Parameters<typeof makeHost>[1] = {},
): Promise<{ host: Host; outside: Pod }> {
  const host = await makeHost(t, options);
  const outside = await addMaster(host, '10.99');
  return { host, outside };
}

/** A running server. */
export interface DhcpServer {
  /** Its lease file, which lists what it has granted. */
  leases(): Promise<string>;
  /** Waits until it has no lease for an address: a DHCPRELEASE is not answered. */
  untilReleased(address: string): Promise<void>;
  /** What it has printed. */
  said(): string;
  stop(): Promise<void>;
}

/** Starts a real server, which leases 10.99.1.0 to 10.99.1.9. */
export async function dnsmasq(t: Teardown, outside: Pod, ...options: string[]): Promise<DhcpServer> {
  return startDnsmasq(t, outside, `/run/leases-${outside.name}`, '--interface=eth0', ...options);
}

/** The same, listening where the options say. @param leaseFile lists what it has granted. */
export async function startDnsmasq(
  t: Teardown,
  where: Namespace,
  leaseFile: string,
  ...options: string[]
): Promise<DhcpServer> {
  let log = '';
  const child = spawn(
    where.enter[0]!,
    [
      ...where.enter.slice(1),
      ...[
        'dnsmasq',
        '--keep-in-foreground',
        '--conf-file=/dev/null',
        '--port=0',
        '--user=root',
        '--log-facility=-',
        '--no-ping',
      ],
      ...[
        '--log-dhcp',
        '--dhcp-authoritative',
        '--dhcp-range=10.99.1.0,10.99.1.9,255.255.0.0,120',
        `--dhcp-leasefile=${leaseFile}`,
        '--pid-file=',
      ],
      ...options,
    ],
    { env: cleanEnv, stdio: ['pipe', 'ignore', 'pipe'] },
  );
  t.teardown(() => void child.kill('SIGKILL'));
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (text: Buffer) => {
      log += text.toString();
      if (/started/.test(log)) resolve();
    });
    child.on('exit', () => reject(new Error(log)));
  });
  const leases = async () => (await where.tryRun(['cat', leaseFile])).stdout;
  return {
    leases,
    untilReleased: (address) =>
      until(`${address} is released`, async () => !(await leases()).includes(` ${address} `)),
    said: () => log,
    async stop() {
      const ended = new Promise((resolve) => child.on('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** A running DHCP daemon: ends it, and tells what it has printed. */
export interface Daemon {
  stop(signal?: NodeJS.Signals): Promise<void>;
  said(): string;
}

/** Starts `dhcp daemon` on a host. It ends with the test. @param options of its command line. */
export function daemon(t: Teardown, host: Host, ...options: string[]): Promise<Daemon> {
  return startDaemon(t, host, [], options);
}

/** The same in a container, which has a /run of its own and the root of the host at /mnt. */
export function daemonInContainer(t: Teardown, host: Host, ...options: string[]): Promise<Daemon> {
  const mounts = 'mount --rbind / /mnt; mount -t tmpfs tmpfs /run; exec "$0" "$@"';
  return startDaemon(t, host, ['unshare', '--mount', 'sh', '-ec', mounts], options);
}

async function startDaemon(
  t: Teardown,
  host: Host,
  enter: readonly string[],
  options: readonly string[],
): Promise<Daemon> {
  await host.run(['mkdir', '-p', '/run/cni']);
  const argv = [...host.enter, ...enter, join(suites.ours, 'dhcp'), 'daemon', ...options];
  const [program, ...args] = argv as [string, ...string[]];
  const child = spawn(program, args, { env: cleanEnv, stdio: ['ignore', 'inherit', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text: Buffer) => {
    said += text.toString();
  });
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  t.teardown(() => void child.kill('SIGKILL'));
  // nsenter execs the daemon, so that signals reach it. It is ready once it answers.
  const network = { ...sample(dhcpSample), plugins: [{ type: 'dhcp', ipam: { type: 'dhcp' } }] };
  const answers = async () => (await runNetworkVerb(host, network, 'STATUS')).exit === 0;
  await until('the daemon answers', answers).catch((error: Error) => {
    throw new Error(`${error.message}: ${said}`);
  });
  return {
    said: () => said,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await ended;
    },
  };
}

/** ISC's server, with the same range. */
export async function dhcpd(t: Teardown, outside: Pod): Promise<{ leases(): Promise<string> }> {
  const [config, leases] = [`/run/dhcpd-${outside.name}.conf`, `/run/dhcpd-${outside.name}.leases`];
  await outside.run(['sh', '-c', `cat > ${config}; touch ${leases}`], {
    stdin: `default-lease-time 120; authoritative;
      subnet 10.99.0.0 netmask 255.255.0.0 { range 10.99.1.0 10.99.1.9; option routers 10.99.255.254; }`,
  });
  const argv = [
    'dhcpd',
    '-4',
    '-f',
    '-q',
    '-user',
    'root',
    '-group',
    'root',
    '-cf',
    config,
    '-lf',
    leases,
    '-pf',
    `${leases}.pid`,
    'eth0',
  ];
  const child = spawn(outside.enter[0]!, [...outside.enter.slice(1), ...argv], {
    env: cleanEnv,
    stdio: 'ignore',
  });
  t.teardown(() => void child.kill('SIGKILL'));
  await until('dhcpd listens', async () => (await outside.run(['ss', '-lun'])).includes(':67 '));
  return { leases: () => outside.run(['cat', leases]) };
}
