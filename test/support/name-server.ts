/** The dnsmasq of a network on a test host, as the plugin dnsname leaves it there. */

import { readFileSync } from 'node:fs';
import type { AttachOptions, Conflist } from './chain.ts';
import { type Host, makeHost, type Teardown } from './host.ts';

const usualParent = '/run/containers/cni/dnsname';

/** Where its files are. @param parent directory with those of all networks. */
export function nameDirectory(network: string, parent = usualParent): string {
  return `${parent}/${network}`;
}

/** Its process; undefined when it does not run. */
export function nameServer(host: Host, network: string, parent = usualParent): number | undefined {
  const directory = nameDirectory(network, parent);
  try {
    const pid = Number(readFileSync(host.file(`${directory}/pidfile`), 'utf8'));
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Ends it with the test, as it outlives the process that started it. */
export function endNameServer(t: Teardown, host: Host, network: string, parent = usualParent): void {
  t.teardown(() => {
    const pid = nameServer(host, network, parent);
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  });
}

/** The network "names", whose containers have names. */
export const network = (keys: object = {}, bridge: object = {}): Conflist => ({
  cniVersion: '1.1.0',
  name: 'names',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      isDefaultGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]],
      },
      ...bridge,
    },
    {
      type: 'dnsname',
      domainName: 'cluster.local',
      capabilities: { aliases: true, portMappings: true },
      ...keys,
    },
  ],
});

/** A host whose name servers are ended with the test. */
export async function makeNamedHost(t: Teardown): Promise<Host> {
  const host = await makeHost(t);
  endNameServer(t, host, 'names');
  return host;
}

/** The name server of {@link network}; undefined when it does not run. */
export const serverOf = (host: Host) => nameServer(host, 'names');

/** Options for a pod with a name. */
export const named = (name: string, options: AttachOptions = {}): AttachOptions => ({
  args: `IgnoreUnknown=1;K8S_POD_NAME=${name}`,
  ...options,
});
