/**
 * Refused by the kernel anywhere: a verb whose request is refused by the kernel, while all others that were
 * sent with it are carried out, answers with a CNI error and has undone what it did, or succeeds and has done
 * its work. So does a verb whose dumps are interrupted or break off. A living attachment of the same network
 * is not hurt.
 */

import { isDeepStrictEqual } from 'node:util';
import type { Host } from '../support/host.ts';
import { FailureBench, type FailureCase, isLooking } from './failures.ts';
import { FirstBench, openFirst } from './first-refusals.ts';
import type { Start } from './injection.ts';
import { type CalledVerb, changingVerbs, lookingVerbs, pointsOf, type Verdict } from './kills.ts';
import { disturb, findRequests, type NetlinkFault, type RequestPoint } from './netlink-faults.ts';
import { Scene } from './scene.ts';
import { type Subject, toTry } from './subjects.ts';

const refused = ['EPERM', 'ENOMEM', 'EBUSY', 'EOPNOTSUPP'];

/**
 * The errors that are tried for each request. ENODEV is tried in ADD only, and never for what is to be
 * deleted: no kernel gives that for what is there.
 */
const errors: Readonly<Record<string, readonly string[]>> = {
  new: [...refused, 'EEXIST', 'ENODEV'],
  set: [...refused, 'EEXIST', 'ENODEV'],
  del: refused,
  // Not EOPNOTSUPP, which is the answer of kernels without connection tracking.
  forget: ['EPERM', 'ENOMEM', 'EBUSY'],
  batch: [...refused, 'EEXIST', 'ENOENT'],
};

/** Errors that are each tried on a host of their own. */
const firstErrors = ['EPERM', 'EEXIST'];

/** Errors of a batch after which it is composed anew, and how often; see lib/firewall/nftables.ts. */
const repeated = { EBUSY: 10, ENOENT: 10 };

/** Refuses a batch that depends on a generation of the ruleset, as if the ruleset had changed by now. */
const outdated: readonly NetlinkFault[] = [1, 200].map((times) => ({
  ...{ effect: 'refuse', error: 'ERESTART', times },
}));

/** Faults of a dump: an interrupted one is repeated, and the last counts even if it was interrupted too. */
const listFaults: readonly NetlinkFault[] = [
  { effect: 'interrupt', times: 2 },
  { effect: 'interrupt', times: 1_000_000 },
  { effect: 'break', error: 'ENOBUFS', times: 1 },
  { effect: 'break', error: 'EINTR', times: 1 },
];

/** What requests are about, by message type: of rtnetlink by the first type of a group of four. */
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

/** One fault of one request. */
export interface RefusalCase extends FailureCase {
  /** Whether the host has had no attachment before. */
  readonly isFirst: boolean;
}

/** Tries one case after the other. */
export class RefusalBench {
  private readonly subject: Subject;
  private readonly first: FirstBench;
  private others: FailureBench | undefined;

  constructor(subject: Subject) {
    this.subject = subject;
    this.first = new FirstBench(subject);
  }

  async close(): Promise<void> {
    await this.others?.close();
  }

  /** Tries a case. @returns what went wrong; the bench is not to be used any further then. */
  async attempt(one: RefusalCase): Promise<Verdict> {
    if (one.isFirst) return await this.first.attempt(one);
    this.others ??= await FailureBench.open(this.subject);
    return await this.others.attempt(one);
  }
}

/**
 * Lists the cases of a subject, by running each verb once under observation.
 * @param only name of a case, or its beginning; other verbs and plugins are left out.
 */
export async function refusalCases(subject: Subject, only = ''): Promise<RefusalCase[]> {
  const verbs = [...changingVerbs, ...lookingVerbs];
  const usual = await pointsOf(await Scene.open(subject), only, verbs, findRequests);
  const first = await pointsOf(await openFirst(subject), only, ['ADD'], findRequests);
  const cases: RefusalCase[] = [];
  for (const { verb, index, points } of usual) {
    const add = (isFirst: boolean, request: RequestPoint, fault: NetlinkFault) => {
      const what = `${isFirst ? 'first-' : ''}${nameOf(request)}`;
      cases.push({
        name: [
          verb,
          `${index}-${subject.network.plugins[index]!.type}`,
          what,
          request.nth,
          describe(fault),
        ].join('/'),
        ...{ verb, index, error: fault.error ?? '', isFirst },
        inject: (host: Host, start: Start) => disturb(host, start, request, fault),
      });
    };
    // As in failures.ts, one fault for each request of a verb that only looks is enough.
    const sampled = isLooking(verb) ? { ...subject, isSampled: true } : subject;
    for (const [nth, request] of points.entries())
      for (const fault of toTry(sampled, faultsOf(request, verb), nth)) add(false, request, fault);
    const ofFirst = verb === 'ADD' ? changesIn(first.find((one) => one.index === index)!.points) : [];
    if (isDeepStrictEqual(ofFirst, changesIn(points))) continue;
    for (const [nth, request] of ofFirst.entries())
      for (const error of toTry(subject, firstErrors, nth))
        add(true, request, { effect: 'refuse', error, times: 1 });
  }
  return cases;
}

function changesIn(requests: readonly RequestPoint[]): RequestPoint[] {
  return requests.filter(({ kind }) => kind !== 'dump');
}

function faultsOf(request: RequestPoint, verb: CalledVerb): readonly NetlinkFault[] {
  if (request.kind === 'dump') return listFaults;
  const possible = errors[request.kind === 'batch' ? 'batch' : verbOf(request)] ?? [];
  const once = possible
    .filter((error) => verb === 'ADD' || error !== 'ENODEV')
    .map((error) => ({ effect: 'refuse' as const, error, times: 1 }));
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
  // In nfnetlink, only connections are changed outside of batches, and they are only deleted.
  return protocol === rtnetlink ? verbNames[type & 3]! : 'forget';
}

function nameOf(request: RequestPoint): string {
  const { kind, protocol, type } = request;
  if (kind === 'batch') return kind;
  if (protocol === rtnetlink) return `${verbOf(request)}${objects[type & ~3] ?? type & ~3}`;
  return `${kind}-${type >> 8}.${type & 0xff}`;
}
