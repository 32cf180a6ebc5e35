/** The result cache, host-local's files, the firewall and the kernel, compared with one another. */

import { basename } from 'node:path';
import { attachmentKey } from '../../lib/attachment.ts';
import { strayVeths } from '../inventory/hidden.ts';
import { displayName } from '../inventory.ts';
import { deleteNetwork } from '../libcni/chain.ts';
import { networkFromCache } from '../libcni/conflist.ts';
import { forgetSaved, isCurrent, listRecords } from '../records.ts';
import { reservationsOf } from '../reservations.ts';
import { cacheDir } from '../settings.ts';
import { count, quoted } from '../terminal.ts';
import { type Check, type Finding, linkRemoval, shellWord } from './check.ts';
import type { Context } from './context.ts';

export const records: Check = {
  id: 'records',
  title: 'Records',
  run(context) {
    const findings = [
      ...damagedRecords(context),
      ...damagedReservations(context),
      ...hiddenRules(context),
      ...orphans(context),
      ...hiddenContainers(context),
      ...sharedAddresses(context),
      ...portsOfNobody(context),
    ];
    return {
      findings,
      seen: `what is on disk and in the kernel belongs to ${count(context.running.length, 'running attachment')}`,
    };
  },
};

function damagedRecords({ inventory: { attachments } }: Context): Finding[] {
  return listRecords(cacheDir()).flatMap(({ file, error }) => {
    if (!error) return [];
    // It may be all that keeps a container's addresses from being handed out again.
    const isHeld = attachments.some(({ containerId }) => basename(file).includes(containerId));
    const remove = `rm ${shellWord(file)}`;
    return [
      {
        severity: 'error',
        subject: file,
        message: error.message,
        cause:
          'The host lost power, its disk was full, or a program other than the runtime has written the file',
        fix: isHeld
          ? `Have the runtime delete the container, and add it again. Only if it is gone: ${remove} && cni gc`
          : remove,
      },
    ];
  });
}

/** Files of host-local that cannot be used. */
function damagedReservations({ inventory: { networks }, once }: Context): Finding[] {
  const problems = networks.flatMap((network) => reservationsOf(network, once).problems);
  return [...new Set(problems)].map((message) => ({
    severity: 'warning',
    subject: 'host-local',
    message,
    cause: 'The host lost power, its disk was full, or another program has written there',
    fix: 'Remove the files that the message names, if no running pod has their addresses',
  }));
}

/** How to collect what containers left on a network. */
export function collectFix(network: string, disableGC = false): string {
  return disableGC
    ? `Make sure that no other runtime on this host uses network "${network}", take "disableGC" out of its configuration, and run "cni gc ${shellWord(network)}"`
    : `cni gc ${shellWord(network)}`;
}

function orphans({ inventory: { attachments, records, networks }, environment }: Context): Finding[] {
  return attachments
    .filter(({ orphaned }) => orphaned.length > 0)
    .map((one) => {
      const record = records.get(attachmentKey(one));
      const network = record && networkFromCache(record);
      // As for "cni gc", the current configuration counts, if there is one.
      const disableGC = networks.find(({ name }) => name === one.network)?.disableGC;
      const holds = one.ips.length > 0 ? `, and holds ${one.ips.join(', ')}` : '';
      return {
        severity: 'warning',
        subject: `${displayName(one)} on network "${one.network}"`,
        key: attachmentKey(one),
        message: `It belongs to no container any more${holds}: ${one.orphaned.join('; ')}`,
        cause: 'The host went down, or the runtime lost the container, without a DEL',
        fix: collectFix(one.network, disableGC),
        // Without a record, it may be from an ADD that is under way.
        ...(record &&
          network &&
          !disableGC && {
            apply: async () => {
              if (!isCurrent(environment.cacheDir, record)) return;
              await deleteNetwork(network, { ...record, netns: one.netns }, environment);
              forgetSaved(environment.cacheDir, record);
            },
          }),
      };
    });
}

function hiddenRules({ inventory: { ruleProblems } }: Context): Finding[] {
  return ruleProblems.map((message) => ({
    severity: 'warning',
    subject: 'firewall rules',
    key: message,
    message,
    cause: 'Another program has put rules there that iptables cannot list, or the kernel refused to tell',
    fix: 'Fix what the message names, and look again',
  }));
}

function hiddenContainers({ inventory: { hidden } }: Context): Finding[] {
  return hidden.map(({ message }) => ({
    severity: 'warning',
    subject: 'containers without a record',
    key: message,
    message,
    cause: 'A runtime keeps its records elsewhere, an ADD is under way, or records were removed',
    fix: 'If the records are in "/var/lib/cni/cache/results": CNI_CACHE_DIR=/var/lib/cni/cache cni doctor',
  }));
}

function sharedAddresses({ running }: Context): Finding[] {
  const all = running.flatMap(({ attachment: { network, ips }, name }) =>
    ips.map((ip) => ({ network, ip, name })),
  );
  return [...Map.groupBy(all, ({ network, ip }) => `${network} ${ip}`)]
    .filter(([, holders]) => holders.length > 1)
    .map(([key, holders]) => ({
      severity: 'error',
      subject: holders[0]!.ip,
      key,
      message: `${holders.map(({ name }) => `"${name}"`).join(' and ')} have the same address on network "${holders[0]!.network}"`,
      cause: 'The reservation was removed while the first of them ran, or the addresses are static',
      fix: `Delete one of the pods, so that its runtime attaches it anew`,
    }));
}

/** Interfaces on bridges of networks that belong to no attachment. */
function portsOfNobody({ inventory: { links, attachments } }: Context): Finding[] {
  const known = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
  const bridges = links.filter(({ kind, name }) => kind === 'bridge' && known.has(name));
  return bridges.flatMap((bridge) => {
    const strays = strayVeths(bridge.index, links, attachments).map(({ name }) => name);
    if (strays.length === 0) return [];
    return [
      {
        severity: 'info',
        subject: bridge.name,
        message: `${quoted(strays)} on bridge "${bridge.name}" ${strays.length === 1 ? 'belongs' : 'belong'} to no attachment that a runtime has recorded`,
        cause: 'An ADD is under way, somebody attached it by hand, or a runtime keeps its records elsewhere',
        fix: `If no container needs it: ${linkRemoval(strays)}`,
      },
    ];
  });
}
