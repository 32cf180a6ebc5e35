/**
 * Port mappings by iptables: from PREROUTING and OUTPUT to CNI-HOSTPORT-DNAT, which sends the ports of each container to a
 * chain of its own. Names, comments and marks are the reference plugin's.
 */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, type Prefix } from '../ip.ts';
import { acquireLock } from '../kernel/lock.ts';
import type { Programs } from '../kernel/programs.ts';
import {
  families,
  forFamilies,
  IptablesError,
  IptablesMissingError,
  list,
  requireInstalled,
  restore,
} from './iptables.ts';
import { portMapChain, portMapComment, readComment } from './names.ts';
import {
  boundAddress,
  type MappedPort,
  mappingsOf,
  type PortMapBackend,
  type PortMapHints,
  type PortMapOptions,
  type PortMapping,
  portMapLock,
} from './portmap.ts';
import { commentWords, option, quote, type Rule } from './rules.ts';

const entryChain = 'CNI-HOSTPORT-DNAT';
const markChain = 'CNI-HOSTPORT-SETMARK';
const masqueradeChain = 'CNI-HOSTPORT-MASQ';
/** What the multiport match takes. */
const portsPerRule = 15;

export const iptablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(attachment, containers, mappings, options) {
    // Between looking whether a port is free and taking it, nobody else may.
    using _ = await acquireLock(portMapLock);
    await forFamilies(familiesOf(containers, mappings), async (family) => {
      const container = containers.find((prefix) => prefix.family === family)!;
      const own = mappingsOf(mappings, family);
      const entries = await list(programs, family, 'nat', entryChain);
      if (entries) await refuseTaken(programs, family, attachment, entries, own, options);
      const rules = containerRules(attachment, container, own, options);
      const chain = portMapChain(attachment);
      try {
        if (!entries) throw new IptablesError(0, 'The chains are not set up yet');
        // On a node where all is in place and the container is new, this is all there is to do.
        await restore(programs, family, 'nat', [
          ...sharedRules(family, options).map(({ rule }) => `-C ${rule}`),
          `-N ${chain}`,
          ...rules,
        ]);
      } catch (error) {
        if (!(error instanceof IptablesError)) throw error;
        await restore(programs, family, 'nat', [
          ...(await setUpShared(programs, family, options)),
          ...removal(entries ?? [], chain),
          `:${chain} - [0:0]`,
          ...rules,
        ]);
      }
    });
  },

  async del(attachment, hints) {
    const chain = portMapChain(attachment);
    const removed: MappedPort[] = [];
    const left: Family[] = [];
    await forFamilies(hints ? familiesOf(hints.containers, hints.mappings) : [], async (family) => {
      const ports = await removeKnown(programs, family, attachment, hints!);
      if (ports) removed.push(...ports);
      else left.push(family);
    });
    // Without mappings the rules tell, as some runtimes do not pass them on DEL.
    const looked = !hints
      ? families
      : hints.mappings.length > 0
        ? left
        : [...new Set(hints.containers.map(({ family }) => family))];
    const found = await removeFrom(programs, looked, (entries) =>
      entries.some((rule) => option(rule, '-j') === chain) ? [chain] : [],
    );
    return [...removed, ...found];
  },

  async check(attachment, containers, mappings, options) {
    const chain = portMapChain(attachment);
    await forFamilies(familiesOf(containers, mappings), async (family) => {
      const container = containers.find((prefix) => prefix.family === family)!;
      const [entries = [], rules = [], complete] = await Promise.all([
        list(programs, family, 'nat', entryChain),
        list(programs, family, 'nat', chain),
        hasShared(programs, family, options),
      ]);
      for (const mapping of mappingsOf(mappings, family)) {
        const name = `Port ${mapping.hostPort}/${mapping.protocol} of the node`;
        const led = entries.some((rule) => option(rule, '-j') === chain && leads(rule, mapping));
        const mapped = rules.some(
          (rule) =>
            option(rule, '-p') === mapping.protocol &&
            option(rule, '--dport') === String(mapping.hostPort) &&
            option(rule, '--to-destination') === destination(container.address, mapping.containerPort),
        );
        if (!led || !mapped)
          throw new Error(
            `${name} does not lead to ${destination(container.address, mapping.containerPort)}: a rule is missing from chain "${led ? chain : entryChain}". Delete the container and add it again`,
          );
      }
      if (!complete) await nameMissing(programs, family, options);
    });
  },

  async gc(network, valid) {
    const ids = new Set(valid.map(({ containerId }) => containerId));
    return await removeFrom(programs, families, (entries) => {
      const stale = entries.filter((rule) => {
        const owner = readComment(option(rule, '--comment') ?? '');
        return owner?.network === network && !ids.has(owner.containerId);
      });
      return stale.flatMap((rule) => option(rule, '-j') ?? []);
    });
  },

  async probe() {
    requireInstalled(programs, 4);
  },
});

/** Removes the rules as ADD made them. @returns undefined when they are not quite like that, and nothing was done. */
async function removeKnown(
  programs: Programs,
  family: Family,
  attachment: AttachmentId,
  { containers, mappings, options }: PortMapHints,
): Promise<MappedPort[] | undefined> {
  const chain = portMapChain(attachment);
  const container = containers.find((prefix) => prefix.family === family)!;
  const own = mappingsOf(mappings, family);
  const entries = containerRules(attachment, container, own, options).filter((rule) =>
    rule.startsWith(`-A ${entryChain} `),
  );
  try {
    await restore(programs, family, 'nat', [
      ...entries.map((rule) => rule.replace(/^-A/, '-D')),
      `-F ${chain}`,
      `-X ${chain}`,
    ]);
    return own.map(({ hostPort: port, protocol }) => ({ family, port, protocol }));
  } catch (error) {
    if (error instanceof IptablesMissingError) return []; // Then there are no rules either.
    if (error instanceof IptablesError) return undefined;
    throw error;
  }
}

/** Takes containers' chains out, whoever made them. @param choose which of the chains that the entry rules lead to. */
async function removeFrom(
  programs: Programs,
  wanted: readonly Family[],
  choose: (entries: readonly Rule[]) => string[],
): Promise<MappedPort[]> {
  const removed: MappedPort[] = [];
  await forFamilies(wanted, async (family) => {
    let entries: Rule[] | undefined;
    try {
      entries = await list(programs, family, 'nat', entryChain);
    } catch (error) {
      if (error instanceof IptablesMissingError) return; // Then there are no rules either.
      throw error;
    }
    const chains = new Set(choose(entries ?? []));
    if (chains.size === 0) return;
    const commands = [...chains].flatMap((chain) => removal(entries ?? [], chain));
    await restore(programs, family, 'nat', [
      ...commands,
      ...[...chains].flatMap((chain) => [`-F ${chain}`, `-X ${chain}`]),
    ]);
    for (const rule of entries ?? [])
      if (chains.has(option(rule, '-j') ?? ''))
        for (const port of portsOf(rule)) removed.push({ family, port, protocol: option(rule, '-p') ?? '' });
  });
  return removed;
}

function removal(entries: readonly Rule[], chain: string): string[] {
  return entries
    .filter((rule) => option(rule, '-j') === chain)
    .map((rule) => `-D ${entryChain} ${rule.words.map(quote).join(' ')}`);
}

/** The rules of one container: its own chain's, and those that lead there. */
function containerRules(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
): string[] {
  const chain = portMapChain(attachment);
  const { family } = container;
  const setMark = options.externalSetMarkChain || markChain;
  const anySource = family === 4 ? '0.0.0.0/0' : '::/0';
  const sources = !options.snat
    ? []
    : options.masqAll
      ? [anySource]
      : family === 4
        ? [`${container}`, '127.0.0.1']
        : [`${container}`];
  const own = mappings.flatMap((mapping) => {
    const host = boundAddress(mapping);
    const match = `-p ${mapping.protocol} --dport ${mapping.hostPort}${host ? ` -d ${host}` : ''}`;
    return [
      ...sources.map((source) => `-A ${chain} ${match} -s ${source} -j ${setMark}`),
      `-A ${chain} ${match} -j DNAT --to-destination ${destination(container.address, mapping.containerPort)}`,
    ];
  });
  const conditions = options.conditions[family].map(quote).join(' ');
  const entries = portGroups(mappings).map(
    ({ protocol, ports }) =>
      `-A ${entryChain} ${comment(portMapComment(attachment))} -p ${protocol} -m multiport --destination-ports ${ports.join(',')} ${conditions} -j ${chain}`,
  );
  return [...own, ...entries];
}

/** Ports by protocol, as many as one rule takes. */
function portGroups(mappings: readonly PortMapping[]): { protocol: string; ports: number[] }[] {
  const protocols = [...new Set(mappings.map(({ protocol }) => protocol))].sort();
  return protocols.flatMap((protocol) => {
    const ports = [
      ...new Set(mappings.filter((one) => one.protocol === protocol).map(({ hostPort }) => hostPort)),
    ];
    const groups = [];
    for (let i = 0; i < ports.length; i += portsPerRule)
      groups.push({ protocol, ports: ports.slice(i, i + portsPerRule) });
    return groups;
  });
}

/** Rules that all containers share, by the chain they are in. Those of chains not ours are first. */
function sharedRules(
  _family: Family,
  options: PortMapOptions,
): { chain: string; rule: string; first?: boolean }[] {
  const mark = `0x${(2 ** options.markMasqBit).toString(16)}`;
  const rules: { chain: string; rule: string; first?: boolean }[] = ['PREROUTING', 'OUTPUT'].map((chain) => ({
    chain,
    rule: `${chain} -m addrtype --dst-type LOCAL -j ${entryChain}`,
  }));
  if (!options.snat || options.externalSetMarkChain) return rules;
  return [
    ...rules,
    {
      chain: 'POSTROUTING',
      rule: `POSTROUTING ${comment('CNI portfwd requiring masquerade')} -j ${masqueradeChain}`,
      first: true,
    },
    {
      chain: markChain,
      rule: `${markChain} ${comment('CNI portfwd masquerade mark')} -j MARK --set-xmark ${mark}/${mark}`,
    },
    { chain: masqueradeChain, rule: `${masqueradeChain} -m mark --mark ${mark}/${mark} -j MASQUERADE` },
  ];
}

/** Whether all that containers share is there. */
async function hasShared(programs: Programs, family: Family, options: PortMapOptions): Promise<boolean> {
  try {
    await restore(
      programs,
      family,
      'nat',
      sharedRules(family, options).map(({ rule }) => `-C ${rule}`),
    );
    return true;
  } catch (error) {
    if (error instanceof IptablesError) return false;
    throw error;
  }
}

/** @throws Error that names a shared rule that is missing, unless another one does its work. */
async function nameMissing(programs: Programs, family: Family, options: PortMapOptions): Promise<void> {
  for (const { chain, rule } of sharedRules(family, options)) {
    const present = (await list(programs, family, 'nat', chain)) ?? [];
    if (
      !present.some(
        (one) => rule.endsWith(`-j ${option(one, '-j')}`) || rule.includes(`-j ${option(one, '-j')} `),
      )
    )
      throw new Error(
        `Chain "${chain}" lacks the rule "${rule}", so no port of the node is mapped. Add any container to set it up again`,
      );
  }
}

/** What is missing of the shared chains and rules. */
async function setUpShared(programs: Programs, family: Family, options: PortMapOptions): Promise<string[]> {
  const commands: string[] = [];
  const wanted = sharedRules(family, options);
  const ours = [
    entryChain,
    ...(wanted.some(({ chain }) => chain === markChain) ? [markChain, masqueradeChain] : []),
  ];
  for (const chain of ours)
    if ((await list(programs, family, 'nat', chain)) === undefined) commands.push(`-N ${chain}`);
  for (const { rule, first } of wanted) {
    try {
      await restore(programs, family, 'nat', [`-C ${rule}`]);
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      commands.push(first ? `-I ${rule}` : `-A ${rule}`);
    }
  }
  return commands;
}

/** @throws Error naming the container that has one of the ports already. */
async function refuseTaken(
  programs: Programs,
  family: Family,
  attachment: AttachmentId,
  entries: readonly Rule[],
  mappings: readonly PortMapping[],
  options: PortMapOptions,
): Promise<void> {
  // Conditions divide a port's traffic among containers in ways that cannot be compared.
  if (options.conditions[family].length > 0) return;
  const own = portMapChain(attachment);
  for (const mapping of mappings) {
    for (const entry of entries) {
      const chain = option(entry, '-j');
      if (!chain || chain === own || !leads(entry, mapping)) continue;
      const rules = ((await list(programs, family, 'nat', chain)) ?? []).filter(
        (rule) =>
          option(rule, '-j') === 'DNAT' &&
          option(rule, '-p') === mapping.protocol &&
          option(rule, '--dport') === String(mapping.hostPort),
      );
      const wanted = boundAddress(mapping);
      const clash = rules.find((rule) => {
        const taken = option(rule, '-d')?.split('/')[0];
        return !taken || !wanted || wanted.equals(Address.tryParse(taken));
      });
      if (!clash) continue;
      const owner = readComment(option(entry, '--comment') ?? '');
      throw new Error(
        `Port ${mapping.hostPort}/${mapping.protocol} of the node is taken by container "${owner?.containerId ?? '?'}" on network "${owner?.network ?? '?'}", where it leads to ${option(clash, '--to-destination')}. ` +
          'Choose another hostPort, or delete that container; if it is gone already, run GC for its network',
      );
    }
  }
}

function leads(entry: Rule, { protocol, hostPort }: PortMapping): boolean {
  return option(entry, '-p') === protocol && portsOf(entry).includes(hostPort);
}

function portsOf(entry: Rule): number[] {
  const text = option(entry, '--dports') ?? option(entry, '--destination-ports') ?? '';
  return text.split(',').filter(Boolean).map(Number);
}

function destination(address: Address, port: number): string {
  return address.family === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}

function familiesOf(containers: readonly Prefix[], mappings: readonly PortMapping[]): Family[] {
  return families.filter(
    (family) =>
      containers.some((prefix) => prefix.family === family) && mappingsOf(mappings, family).length > 0,
  );
}

function comment(text: string): string {
  return commentWords(text).map(quote).join(' ');
}
