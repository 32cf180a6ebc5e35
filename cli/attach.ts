/** `cni attach|detach POD NETWORK`: additional networks of a running pod. */

import { depthVariable } from '../lib/cni/call.ts';
import { parseResult, type Result } from '../lib/cni/result.ts';
import { getLink, listLinks } from '../lib/kernel/link.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import { openSandbox, openSandboxIfPresent, type Sandbox } from '../lib/kernel/sandbox.ts';
import { settleDefaultRoutes } from '../lib/networks/default-route.ts';
import type { Delegate } from '../lib/networks/delegates.ts';
import { lockNetworks } from '../lib/networks/lock.ts';
import { furtherArgs, withArgs } from '../lib/networks/pod.ts';
import type { SavedDelegate, SavedDelegates } from '../lib/networks/saved.ts';
import { selectionOf } from '../lib/networks/selection.ts';
import { readArgs, readCapabilityArgs, requireNetns, rollBack } from './attachment.ts';
import { CommandError, describeError } from './errors.ts';
import { displayName, type HostAttachment, takeInventory } from './inventory.ts';
import { addPlugins, deletePlugins, type Environment, PluginFailedError } from './libcni/chain.ts';
import type { PluginEntry } from './libcni/conflist.ts';
import { findNamed, unknownName } from './names.ts';
import { findNetwork } from './networks.ts';
import { forgetSaved, recordOf, savedNetworksOf } from './records.ts';
import { cacheDir, configDir, environment } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { print, warn } from './terminal.ts';

interface AttachArguments {
  pod: string;
  network: string;
  ifname: string | undefined;
  trace: boolean;
}

function podCommand(
  name: string,
  more: string,
  run: (pod: SavedPod, args: AttachArguments) => Promise<void>,
): (describe: string) => Subcommand<AttachArguments> {
  return (describe) => ({
    builder: (yargs) =>
      yargs
        .positional('pod', {
          type: 'string',
          demandOption: true,
          describe: 'Name of the pod, or the beginning of its container ID',
        })
        .positional('network', { type: 'string', demandOption: true, describe: 'Name of the network' })
        .option('ifname', { type: 'string', describe: 'Name of the interface in the pod, such as net1' })
        .option('trace', {
          type: 'boolean',
          default: false,
          describe: "Show each plugin's time, input and result",
        })
        .example(`$0 ${name} shop/web-1 storage`, describe)
        .epilogue(
          `${more}\n\nThe pod's own network must be of "multus" or "genie": those save which networks a pod has, so that they check ` +
            'this one as well, and detach it when the pod is deleted. For any other namespace, use "cni add" and "cni del".',
        ),
    handler: async (args) => {
      const found = await podNamed(args.pod);
      // The saved networks are read only once nobody else can change them.
      using _ = await lockNetworks(found.containerId);
      await run(savedPod(found), args);
    },
  });
}

export const attach = podCommand(
  'attach',
  'The interface is called net1, or by the next number that is free, unless --ifname says otherwise. The default routes of the pod ' +
    'stay as they are. CNI_ARGS and CAP_ARGS are passed on as "cni add" does.',
  async ({ name, saved, networks }, { network, ifname: wanted, trace }) => {
    const environment = delegating(trace);
    const [first] = networks as [SavedDelegate, ...SavedDelegate[]];
    const { of, netns } = first;
    if (!of)
      throw new CommandError(
        `Pod "${name}" was attached by Multus, which saves too little of it. Delete the pod and add it again`,
      );
    requireNetns(netns);
    const list = findNetwork(network);
    const taken = interfacesOf(netns, networks);
    const { ifname } = selectionOf(network, wanted ?? freeName(taken));
    // If ADD failed, the plugin's DEL would remove an interface that somebody else made.
    if (taken.has(ifname))
      throw new CommandError(
        `Pod "${name}" has an interface "${ifname}" already. Give another name with --ifname`,
      );
    const given = Object.fromEntries(readArgs(process.env.CNI_ARGS ?? ''));
    const one: Delegate = {
      network: list,
      label: network,
      ifname,
      defaultRoute: undefined,
      result: undefined,
      args: withArgs(furtherArgs(first.args), given),
      capabilityArgs: readCapabilityArgs(process.env.CAP_ARGS ?? ''),
    };
    const own = networks.filter((other) => other.of?.network === of.network && other.of.ifname === of.ifname);
    const runtime = recordOf(of.containerId, { ...one, of, netns });
    // Saved before anything is done, so that the pod's DEL finds it if this process is killed.
    saved.save(of, netns, [...own, one]);
    const added: PluginEntry[] = [];
    let result: Result;
    try {
      const json = await addPlugins(list, runtime, environment, added);
      result = parseResult(json, String(json.cniVersion ?? list.cniVersion));
      saved.save(of, netns, withOldDefaults(netns, own, { ...one, result }));
    } catch (error) {
      const refused =
        error instanceof PluginFailedError ? list.plugins.slice(added.length, added.length + 1) : [];
      await rollBack(async () => {
        const takeBack = (plugins: readonly PluginEntry[]) =>
          deletePlugins({ ...list, plugins }, runtime, environment, { goesOn: true });
        const [outcome] = await Promise.allSettled([takeBack(refused)]);
        await takeBack(added);
        if (outcome.status === 'fulfilled') return forgetSaved(cacheDir(), runtime);
        // The pod's DEL tries once more.
        saved.save(of, netns, [...own, { ...one, isRefused: true }]);
        throw outcome.reason;
      });
      throw error;
    }
    const addresses = result.ips.map(({ address }) => `${address}`).join(' and ') || 'no address';
    print(`Pod "${name}" has the interface "${ifname}" on network "${network}", with ${addresses}.`);
  },
);

export const detach = podCommand(
  'detach',
  'The first network of a pod goes only with the pod. --ifname says which one is meant where the pod is attached twice.',
  async ({ name, networks }, { network, ifname, trace }) => {
    const own = networks.filter(
      (one) => one.network.name === network && (ifname === undefined || one.ifname === ifname),
    );
    const [one, another] = own;
    if (!one) {
      const have = networks.map((each) => `"${each.network.name}" (${each.ifname})`).join(', ');
      throw new CommandError(`Pod "${name}" is not attached to network "${network}". It has ${have}`);
    }
    if (another)
      throw new CommandError(
        `Pod "${name}" is attached to network "${network}" as "${one.ifname}" and "${another.ifname}". Say which with --ifname`,
      );
    if (one === networks[0])
      throw new CommandError(`"${network}" is the default network of pod "${name}". Delete the pod instead`);
    const { of } = one;
    if (!of) throw new CommandError(`Network "${network}" was attached by Multus. Delete the pod instead`);
    const record = recordOf(of.containerId, one);
    try {
      await deletePlugins(one.network, record, delegating(trace), { result: one.result });
    } catch (error) {
      if (!one.isRefused) throw error;
      warn(`Network "${network}" was never attached, so that nothing need be left: ${describeError(error)}`);
    }
    if (hasInterface(one))
      throw new CommandError(
        `Pod "${name}" has the interface "${one.ifname}" still, though every plugin of network "${network}" says that it is gone. ` +
          'Remove it, and run "cni detach" again, with --trace to see what each plugin does',
      );
    forgetSaved(cacheDir(), record);
    print(`Pod "${name}" has no interface "${one.ifname}" on network "${network}" any more.`);
  },
);

/** Runs plugins as delegates: otherwise, those that lock the pod's networks would wait for this command. */
function delegating(trace: boolean): Environment {
  const own = environment(trace);
  return { ...own, variables: { ...own.variables, [depthVariable]: '1' } };
}

/** A pod whose networks are saved. */
interface SavedPod {
  readonly name: string;
  readonly saved: SavedDelegates;
  readonly networks: SavedDelegate[];
}

/** @throws CommandError when no pod, or more than one, has the name. */
async function podNamed(name: string): Promise<HostAttachment> {
  const { attachments } = await takeInventory(configDir(), cacheDir());
  const named = findNamed(attachments, name);
  const ids = [...new Set(named.map(({ containerId }) => containerId))];
  if (ids.length > 1)
    throw new CommandError(
      `"${name}" is the name of ${ids.length} pods. Give namespace and name, or one of the container IDs ${ids.join(', ')}`,
    );
  const found = named.find(({ netns }) => netns !== '') ?? named[0];
  if (found) return found;
  throw unknownName(name);
}

/** @throws CommandError when nothing is saved about a pod's networks. */
function savedPod(pod: HostAttachment): SavedPod {
  const name = displayName(pod);
  const found = savedNetworksOf(cacheDir(), pod.containerId);
  if (found) return { ...found, name };
  throw new CommandError(
    `Pod "${name}" is on network "${pod.network}", which is not of "multus" or "genie", or was deleted meanwhile, so that nobody would detach it with the pod. Use "cni add" and "cni del" with the path of its network namespace`,
  );
}

/** Names of the interfaces that a pod has, or will have. */
function interfacesOf(netns: string, networks: readonly SavedDelegate[]): Set<string> {
  const inSandbox = withSocket(netns, (socket) => listLinks(socket).map(({ name }) => name));
  return new Set([...inSandbox, ...networks.map(({ ifname }) => ifname)]);
}

/** Whether a pod has the interface of a network; false if the pod's namespace is gone. */
function hasInterface({ netns, ifname }: SavedDelegate): boolean {
  const sandbox = openSandboxIfPresent(netns);
  return sandbox !== undefined && within(sandbox, (socket) => getLink(socket, ifname) !== undefined);
}

/** "net1", or the first number after it that is free. */
function freeName(taken: ReadonlySet<string>): string {
  let number = 1;
  while (taken.has(`net${number}`)) number++;
  return `net${number}`;
}

/** The pod's networks, after any default route that the new network added has been removed again. */
function withOldDefaults(
  netns: string,
  own: readonly SavedDelegate[],
  added: Delegate & { result: Result },
): Delegate[] {
  const known = own.flatMap((one) => (one.result ? [{ ...one, result: one.result }] : []));
  const settled = withSocket(netns, (socket) => settleDefaultRoutes(() => socket, [...known, added]));
  return [...own, added].map((one) => settled.find(({ ifname }) => ifname === one.ifname) ?? one);
}

/** Does something in a pod's namespace. */
function withSocket<T>(path: string, work: (socket: RouteSocket) => T): T {
  return within(openSandbox(path), work);
}

/** Does something in a sandbox, and closes the sandbox. */
function within<T>({ socket, netns }: Sandbox, work: (socket: RouteSocket) => T): T {
  try {
    return work(socket);
  } finally {
    socket.close();
    netns.close();
  }
}
