/**
 * Refused by the kernel anywhere: a verb of which the kernel refuses one request, and carries out all others that
 * came with it, answers with a CNI error and has undone what it did, or succeeds and is right. So does one whose
 * lists are interrupted or break off. A living attachment of the same network is not hurt.
 */

import type { Host } from '../support/host.ts';
import type { FailureCase } from './failures.ts';
import type { Start } from './injection.ts';
import { bringTo, changingVerbs, cleanUp } from './kills.ts';
import { disturb, findRequests, type NetlinkFault, type RequestPoint } from './netlink-faults.ts';
import { Scene } from './scene.ts';
import type { Subject } from './subjects.ts';

const refused = ['EPERM', 'ENOMEM', 'EBUSY', 'EOPNOTSUPP'];

/**
 * The errors that a request can have, of those that are tried. That something is not there is never said of what
 * is to be deleted: no kernel says so while it is there.
 */
const errors: Readonly<Record<string, readonly string[]>> = {
  new: [...refused, 'EEXIST', 'ENODEV'],
  set: [...refused, 'EEXIST', 'ENODEV'],
  del: refused,
  batch: [...refused, 'EEXIST', 'ENOENT'],
};

/** Errors of a batch after which it is composed anew, and how often; see lib/firewall/nftables.ts. */
const repeated = { EBUSY: 10, ENOENT: 10 };

/** Says of a batch that depends on a generation that this is another one by now. */
const outdated: readonly NetlinkFault[] = [1, 200].map((times) => ({
  ...{ effect: 'refuse', error: 'ERESTART', times },
}));

/** What can happen to a list: of more than five readings in a row, the last one counts. */
const listFaults: readonly NetlinkFault[] = [
  { effect: 'interrupt', times: 2 },
  { effect: 'interrupt', times: 1_000_000 },
  { effect: 'break', error: 'ENOBUFS', times: 1 },
  { effect: 'break', error: 'EINTR', times: 1 },
];

/** What requests are about, by their number: of rtnetlink by what they have in common, of nfnetlink by all. */
const objects: Readonly<Record<number, string>> = {
  16: 'link',
  20: 'addr',
  24: 'route',
  28: 'neigh',
  32: 'rule',
  36: 'qdisc',
  40: 'class',
  44: 'filter',
  64: 'neightable',
  76: 'nsid',
  84: 'mdb',
  108: 'linkprop',
  112: 'vlan',
};
const verbNames = ['new', 'del', 'get', 'set'];
const rtnetlink = 0;
const batchBoundary = 20;

/**
 * Lists the cases of a subject, by running each verb once under observation.
 * @param only name of a case, or its beginning; other verbs and plugins are left out.
 */
export async function refusalCases(subject: Subject, only = ''): Promise<FailureCase[]> {
  const scene = await Scene.open(subject);
  const cases: FailureCase[] = [];
  try {
    for (const verb of changingVerbs)
      for (const [index, { type }] of subject.network.plugins.entries()) {
        const own = `${verb}/${index}-${type}/`;
        if (only && !own.startsWith(`${only}/`) && !`${only}/`.startsWith(own)) continue;
        const attachment = await bringTo(scene, verb, index);
        const { requests, output } = await findRequests(scene.host, scene.start(verb, index, attachment));
        if (output.exit !== 0) throw new Error(`${verb} failed: ${output.stdout}${output.stderr}`);
        for (const request of requests)
          for (const fault of faultsOf(request))
            cases.push({
              name: `${own}${nameOf(request)}/${request.nth}/${describe(fault)}`,
              ...{ verb, index, error: fault.error ?? '' },
              inject: (host: Host, start: Start) => disturb(host, start, request, fault),
            });
        await cleanUp(scene, attachment, 'del');
      }
    return cases;
  } finally {
    await scene.close();
  }
}

function faultsOf(request: RequestPoint): readonly NetlinkFault[] {
  if (request.kind === 'dump') return listFaults;
  const once = (errors[request.kind === 'batch' ? 'batch' : verbOf(request)] ?? []).map((error) => ({
    ...{ effect: 'refuse' as const, error, times: 1 },
  }));
  if (request.kind === 'change') return once;
  const again = Object.entries(repeated).map(([error, times]) => ({
    ...{ effect: 'refuse' as const, error, times },
  }));
  return [...once, ...again, ...(request.length > batchBoundary ? outdated : [])];
}

function describe({ effect, error, times }: NetlinkFault): string {
  return `${error ?? effect}${times === 1 ? '' : `*${times}`}`;
}

function verbOf({ protocol, type }: RequestPoint): string {
  // Of nfnetlink, only connections are changed outside of batches, and they are only deleted.
  return protocol === rtnetlink ? verbNames[type & 3]! : 'del';
}

function nameOf(request: RequestPoint): string {
  const { kind, protocol, type } = request;
  if (kind === 'batch') return kind;
  if (protocol === rtnetlink) return `${verbOf(request)}${objects[type & ~3] ?? type & ~3}`;
  return `${kind}-${type >> 8}.${type & 0xff}`;
}
