/** portmap: maps ports of the host to a container that another plugin has connected. */

import { attachmentKey } from '../lib/attachment.ts';
import { addressesInSandbox, neighbourAddresses } from '../lib/cni/interface.ts';
import { definePlugin, type Repair, requirePrevResult } from '../lib/cni/plugin.ts';
import type { Result } from '../lib/cni/result.ts';
import { runAll, runTogether } from '../lib/cni/steps.ts';
import { type BackendName, backendNames, requireComplete } from '../lib/firewall/backend.ts';
import {
  type BackendChoice,
  changeWithBackend,
  missingInBoth,
  withBackend,
} from '../lib/firewall/backend-choice.ts';
import { freeElsewhere, portMapBackend } from '../lib/firewall/portmap.ts';
import type {
  MappedPort,
  PortMapBackend,
  PortMapCheck,
  PortMapHints,
  PortMapRequest,
} from '../lib/firewall/portmap-backend.ts';
import { forgetAttachments, notedAttachments, rememberAttachment } from '../lib/firewall/portmap-notes.ts';
import type { Prefix } from '../lib/ip.ts';
import { forgetUdp, type StalePort } from '../lib/kernel/conntrack.ts';
import { getLink } from '../lib/kernel/link.ts';
import { lookUpRoute, type Route } from '../lib/kernel/route.ts';
import { preferSysctl, readSysctl } from '../lib/kernel/sysctl.ts';
import { isKernelError } from '../lib/netlink/libc.ts';
import {
  config,
  mappingsOf,
  optionsOf,
  type PortMapCall,
  refuseContradiction,
  refuseIptablesKeys,
} from './portmap/config.ts';
import { forgetConnections, formerPorts, isUdp, readNotedPorts, udpPorts } from './portmap/udp.ts';

export const plugin = definePlugin({
  name: 'portmap',
  summary: 'Leads ports of the host to a container.',
  role: 'chained',
  capability: 'portMappings',
  config,

  explain: ({ backend, snat, masqAll }) => [
    `Leads the ports that the runtime passes to the container, by ${backend ?? 'iptables, or nftables where that cannot be used'}`,
    'Refuses a port that another container has',
    snat ? 'Lets the host itself and the container reach them as well (snat)' : '',
    masqAll ? 'Gives every connection the address of the host' : '',
    'Forgets tracked UDP connections to these ports',
  ],

  validate(config) {
    refuseContradiction(config);
    if (config.backend === 'nftables') refuseIptablesKeys(config);
  },

  ignores: ({ backend, markMasqBit }) =>
    backend === 'nftables' && markMasqBit !== undefined
      ? ['"markMasqBit" has no effect with "backend" "nftables", which needs no mark. Remove it']
      : [],

  async add(call) {
    const result = requirePrevResult(call);
    const request = requestOf(call, result);
    if (request) await mapPorts(call, request);
    return result;
  },

  async del(call) {
    const { attachment } = call;
    const noted = readNotedPorts(call);
    const told = whatIsTold(call);
    const hints = told && told.containers.length > 0 ? told : undefined;
    await eachBackend(
      call,
      (backend) => backend.del(attachment, () => neighbourAddresses(call), hints),
      formerPorts(noted ?? [], told),
    );
    // Last: as long as the note exists, another DEL or GC finishes what this one could not.
    if (noted) forgetAttachments([attachment]);
  },

  async check(call) {
    const mappings = mappingsOf(call);
    const containers = containerAddresses(call, requirePrevResult(call));
    if (mappings.length === 0) return;
    const request = { attachment: call.attachment, containers, mappings, options: optionsOf(call) };
    requireComplete(await missingMappings(call, request), 'Ports of the host do not lead to the container');
  },

  async repair(call) {
    const request = requestOf(call, requirePrevResult(call));
    if (!request) return [];
    const missing = await missingMappings(call, request);
    const restore = () => mapPorts(call, request);
    return [
      ...missing.map((what) => ({ what, restore })),
      ...(request.options.snat ? localhostRepairs(call, request.containers) : []),
    ];
  },

  async status(call) {
    optionsOf(call);
    await withBackend(choiceFor(call, []), async (name) => (await backendOf(call, name)).probe());
  },

  async gc(call) {
    const { network, validAttachments } = call;
    const valid = new Set(validAttachments.map(attachmentKey));
    const stale = notedAttachments(network).filter((one) => !valid.has(attachmentKey(one)));
    await eachBackend(
      call,
      (backend) => backend.gc(network, validAttachments),
      stale.flatMap(({ ports }) => ports),
    );
    forgetAttachments(stale);
  },
});

/** What to map; undefined when there is nothing. */
function requestOf(call: PortMapCall, result: Result): PortMapRequest | undefined {
  const { attachment } = call;
  const mappings = mappingsOf(call);
  const options = optionsOf(call);
  const containers = containerAddresses(call, result);
  if (mappings.length === 0 || containers.length === 0) return undefined;
  return { attachment, containers, mappings, options, neighbours: () => neighbourAddresses(call) };
}

/** Maps the ports, and has the kernel forget UDP connections that go elsewhere. */
async function mapPorts(call: PortMapCall, request: PortMapRequest): Promise<void> {
  const { attachment, containers, mappings, options } = request;
  const ports = udpPorts(mappings, containers);
  // Noted before there are rules: whoever removes them must know which connections to forget.
  const forgetNote = rememberAttachment({ ...attachment, netns: call.netns, ports });
  call.undo('forget whose the port mappings are', forgetNote);
  call.undo('forget UDP connections to the port mappings', () => forgetUdp(ports));
  const freed = await changeWithBackend(
    choiceFor(call, containers),
    (what, step) => call.undo(what, step),
    async (name, undo) => {
      const backend = await backendOf(call, name);
      const others = await freeElsewhere(name, call.programs, request);
      return [...others, ...(await backend.add(request, undo))];
    },
  );
  if (options.snat) allowLocalhost(call, containers);
  const stale = ports.map(({ was, ...port }) => ({ ...port, now: was }));
  forgetConnections(call, [...stale, ...freed.filter(isUdp)]);
}

/**
 * Removes mappings, and then has the kernel forget UDP connections through them. Every backend is asked: the
 * host's choice may have changed since the ports were mapped.
 * @param known ports of the mappings, whose rules an earlier call may have removed.
 */
async function eachBackend(
  call: PortMapCall,
  remove: (backend: PortMapBackend) => Promise<MappedPort[]>,
  known: readonly StalePort[],
): Promise<void> {
  const removed: MappedPort[] = [];
  // iptables tells which ports were removed, but not to which host address they were bound.
  const isKnown = ({ family, port, was }: MappedPort) =>
    !was && known.some((one) => one.family === family && one.port === port);
  const fromBackends = backendNames.map((name) => async () => {
    removed.push(...(await remove(await portMapBackend(name, call.programs))));
  });
  await runAll(
    call,
    () => runTogether(call, ...fromBackends),
    () => forgetConnections(call, [...known, ...removed.filter((port) => isUdp(port) && !isKnown(port))]),
  );
}

/** What the runtime passes on DEL; undefined for a configuration that ADD would refuse. */
function whatIsTold(call: PortMapCall): PortMapHints | undefined {
  const containers = call.prevResult ? containerAddresses(call, call.prevResult) : [];
  try {
    return { containers, mappings: mappingsOf(call), options: optionsOf(call) };
  } catch {
    return undefined;
  }
}

function missingMappings(call: PortMapCall, request: PortMapCheck): Promise<string[]> {
  return missingInBoth(choiceFor(call, request.containers), async (name) =>
    (await backendOf(call, name)).missing(request),
  );
}

function choiceFor({ config, programs }: PortMapCall, containers: readonly Prefix[]): BackendChoice {
  const families = containers.map(({ family }) => family);
  return { programs, fixed: config.backend, families, table: 'nat' };
}

/** @throws Error when the configuration is for another backend. */
function backendOf({ config, programs }: PortMapCall, name: BackendName): Promise<PortMapBackend> {
  if (name === 'nftables') refuseIptablesKeys(config);
  return portMapBackend(name, programs);
}

/** The first address of each family that the container has on this interface. */
function containerAddresses(call: PortMapCall, result: Result): Prefix[] {
  const own = addressesInSandbox(call, result);
  return ([4, 6] as const).flatMap(
    (family) => own.find(({ address }) => address.family === family)?.address ?? [],
  );
}

/**
 * Lets connections from 127.0.0.1 leave the host towards the container; IPv6 has no such setting. Without a
 * route to the container there is nothing to let through, and where the setting cannot be written, the port
 * still serves everybody else.
 */
function allowLocalhost(call: PortMapCall, containers: readonly Prefix[]): void {
  const path = localhostSetting(call, routeTo(call, containers));
  if (path) preferSysctl(path, '1', (text) => call.warn(text));
}

function localhostRepairs(call: PortMapCall, containers: readonly Prefix[]): Repair[] {
  const route = routeTo(call, containers);
  // A route via a gateway is not the container's own, which is then missing.
  const path = route?.gw ? undefined : localhostSetting(call, route);
  if (!path || readSysctl(path) === '1') return [];
  const what = `kernel setting "net.${path.join('.')}" for connections from 127.0.0.1`;
  return [{ what, restore: () => allowLocalhost(call, containers) }];
}

/** The setting of the interface that a route leads to. */
function localhostSetting({ host }: PortMapCall, route: Route | undefined): string[] | undefined {
  const name = route?.link === undefined ? undefined : getLink(host, route.link)?.name;
  return name ? ['ipv4', 'conf', name, 'route_localnet'] : undefined;
}

/** The route to the container's IPv4 address; undefined when there is none. */
function routeTo({ host }: PortMapCall, containers: readonly Prefix[]): Route | undefined {
  const container = containers.find(({ family }) => family === 4);
  if (!container) return undefined;
  try {
    return lookUpRoute(host, container.address);
  } catch (error) {
    if (!isKernelError(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL')) throw error;
    return undefined;
  }
}
