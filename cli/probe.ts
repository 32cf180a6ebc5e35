/** `cni probe POD|NETWORK`: sends packets from inside pods, and tells which arrive. */

import { Address } from '../lib/ip.ts';
import { Netns } from '../lib/kernel/netns.ts';
import { CommandError, ExitCode } from './errors.ts';
import { withFormat } from './format.ts';
import { type RunningAttachment, runningAttachments, uplinksOf } from './inventory/running.ts';
import { type Inventory, takeInventory } from './inventory.ts';
import { findNamed, unknownName } from './names.ts';
import { configuredNetworks } from './networks.ts';
import { AttachmentProbe, type Surroundings } from './probe/attachment.ts';
import type { Outcome } from './probe/outcome.ts';
import { Outside } from './probe/outside.ts';
import { Station } from './probe/station.ts';
import { cacheDir, configDir } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { count, formatTable, paint, print } from './terminal.ts';

interface ProbeArguments {
  target: string;
  to: string | undefined;
  dns: string | undefined;
  name: string;
  format: 'text' | 'json';
}

export const probe: Subcommand<ProbeArguments> = {
  builder: (yargs) =>
    withFormat(yargs, ['text', 'json'], 'How to print what was found')
      .positional('target', {
        type: 'string',
        demandOption: true,
        describe: 'A pod ("default/web-1"), a container ID or its beginning, or a network for all its pods',
      })
      .option('to', {
        type: 'string',
        requiresArg: true,
        describe: 'Also try this address beyond the host, such as 1.1.1.1',
      })
      .option('dns', {
        type: 'string',
        requiresArg: true,
        describe: 'DNS server to ask, in place of those that the pod asks',
      })
      .option('name', {
        type: 'string',
        default: 'example.com',
        requiresArg: true,
        describe: 'What DNS servers are asked for',
      })
      .check(({ to, dns }) => {
        for (const [option, text] of Object.entries({ to, dns }))
          if (text !== undefined && !Address.tryParse(text))
            throw new CommandError(`--${option} is "${text}", but it must be an IP address`, {
              exitCode: ExitCode.Usage,
            });
        return true;
      })
      .example('$0 probe default/web-1', 'One pod')
      .example('$0 probe podnet --to 1.1.1.1', 'Every pod of a network, and the way out')
      .epilogue(
        'It tries the gateway, another pod of the network, the host and the way back from it, published ports from outside, from the ' +
          'host and from the pod itself, DNS, and whether the largest packets arrive. "Outside" is a namespace that is joined to the host ' +
          'while the command runs. If no program in the pod listens on a published port, the command does so meanwhile. ' +
          'Nothing is left behind. The exit code is 1 if anything fails.',
      ),
  handler: async ({ target, to, dns, name, format }) => {
    const inventory = await takeInventory(configDir(), cacheDir());
    const chosen = choose(target, inventory);
    const outcomes = await probeAll(chosen, inventory, { target: to, server: dns, dnsName: name });
    if (format === 'json') print(JSON.stringify({ probes: outcomes }, null, 2));
    else print(describe(outcomes).join('\n'));
    if (outcomes.some(({ state }) => state === 'failed')) process.exitCode = ExitCode.Failure;
  },
};

/** @throws CommandError when nothing that is running has that name. */
function choose(name: string, inventory: Inventory): RunningAttachment[] {
  const running = runningAttachments(inventory);
  const attachments = running.map(({ attachment }) => attachment);
  const named = new Set(findNamed(attachments, name, { networks: true }));
  const probed = running.filter(({ attachment }) => named.has(attachment) && attachment.netns !== '');
  if (probed.length > 0) return probed;
  const isNetwork =
    configuredNetworks().includes(name) || inventory.networks.some((one) => one.name === name);
  if (!isNetwork) throw unknownName(name, { networks: true });
  throw new CommandError(
    `Network "${name}" has no running pods to probe. "cni list" shows the attachments of this host`,
  );
}

/** How many pods are probed at once. */
const atOnce = 3;

async function probeAll(
  chosen: readonly RunningAttachment[],
  inventory: Inventory,
  options: Pick<Surroundings, 'target' | 'server' | 'dnsName'>,
): Promise<Outcome[]> {
  const running = runningAttachments(inventory);
  let outside: Outside | undefined;
  await using host = new Station(undefined);
  const around = {
    host,
    hostAddresses: hostAddressesOf(inventory, running),
    outside: () => (outside ??= new Outside()),
    isOfHost: (ip: string) => inventory.addresses.some(({ prefix }) => `${prefix.address}` === ip),
    ...options,
  };
  const outcomes = new Map<RunningAttachment, Outcome[]>();
  const queue = chosen.values();
  const work = async () => {
    for (const one of queue) outcomes.set(one, await probeOne(one, partnerOf(one, running), around));
  };
  try {
    await Promise.all(Array.from({ length: atOnce }, work));
  } finally {
    await outside?.close();
  }
  return chosen.flatMap((one) => outcomes.get(one) ?? []);
}

async function probeOne(
  one: RunningAttachment,
  other: RunningAttachment | undefined,
  around: Omit<Surroundings, 'partner'>,
): Promise<Outcome[]> {
  using netns = Netns.openIfPresent(one.attachment.netns);
  using otherNetns = other && Netns.openIfPresent(other.attachment.netns);
  if (!netns)
    return [
      { from: one.name, probe: 'pod', to: '-', state: 'untried', detail: 'its network namespace is gone' },
    ];
  await using station = new Station(netns);
  await using otherStation = otherNetns && new Station(otherNetns);
  const partner = other && otherStation && { one: other, station: otherStation };
  const probe = new AttachmentProbe(one, netns, station, { ...around, partner });
  await probe.run();
  return probe.outcomes;
}

/** The next pod of the network: when many are probed, each is the sender once and the receiver once. */
function partnerOf(
  one: RunningAttachment,
  running: readonly RunningAttachment[],
): RunningAttachment | undefined {
  const all = running.filter(
    ({ attachment }) => attachment.network === one.attachment.network && attachment.netns !== '',
  );
  const at = all.findIndex(({ attachment }) => attachment === one.attachment);
  const next = all[(at + 1) % all.length];
  return next && next.attachment.netns !== one.attachment.netns ? next : undefined;
}

/** One address of each family, of an uplink or else of any interface that belongs to no network of pods. */
function hostAddressesOf({ links, addresses }: Inventory, running: readonly RunningAttachment[]): string[] {
  const ofPods = new Set(running.flatMap(({ attachment }) => attachment.hostInterfaces));
  return ([4, 6] as const).flatMap((family) => {
    const uplinks = uplinksOf(family, links);
    const others = links.filter(({ name, up }) => up && name !== 'lo' && !ofPods.has(name));
    const [found] = [...uplinks, ...others].flatMap(({ index }) =>
      addresses.filter(
        ({ link, prefix }) => link === index && prefix.family === family && !prefix.address.isLinkLocal,
      ),
    );
    return found ? [`${found.prefix.address}`] : [];
  });
}

const colours = { ok: 'green', failed: 'red', untried: 'dim' } as const;
const shown = { ok: 'ok', failed: 'failed', untried: 'not tried' } as const;

function describe(outcomes: readonly Outcome[]): string[] {
  const [heading, ...rows] = formatTable(
    ['FROM', 'PROBE', 'TO', 'RESULT'],
    outcomes.map(({ from, probe, to, state, detail }) => [
      from,
      probe,
      to,
      detail === '' ? shown[state] : `${shown[state]}: ${detail}`,
    ]),
  );
  const number = (state: Outcome['state']) => outcomes.filter((one) => one.state === state).length;
  return [
    paint('bold', heading!),
    ...rows.map((row, i) => paint(colours[outcomes[i]!.state], row)),
    '',
    `${count(outcomes.length, 'probe')}: ${number('ok')} ok, ${number('failed')} failed, ${number('untried')} not tried.`,
    ...(number('failed') > 0 ? ['"cni doctor" looks for the causes.'] : []),
  ];
}
