/**
 * The networks that each container was attached to, so that DEL knows them when the configuration has changed
 * or the API does not answer. There is one file per container, named after its ID, in the format of Multus: a
 * list whose elements have "Bytes", the configuration in base64. What this format lacks is under
 * "attachment"; Multus has the same in a result cache beside these files, which is kept for it.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentId } from '../attachment.ts';
import { ifnameProblem, isValidName } from '../cni/invocation.ts';
import { parseJson } from '../cni/json.ts';
import { addressSchema, formatResult, parseResult } from '../cni/result.ts';
import { array, boolean, decode, integer, json, object, record, required, string } from '../cni/schema.ts';
import { newestVersion } from '../cni/version.ts';
import { isObject } from '../object.ts';
import {
  listStateFiles,
  readStateFile,
  removeStateFile,
  removeUnfinished,
  writeStateFile,
} from '../state-file.ts';
import { networkFrom } from './conflist.ts';
import { DelegateCache } from './delegate-cache.ts';
import type { Delegate } from './delegates.ts';

/** A delegate as it was saved, with the attachment of the plugin that delegated to it. */
export interface SavedDelegate extends Delegate {
  /** Undefined in what Multus saved. */
  readonly of: AttachmentId | undefined;
  /** Path of the sandbox's namespace, "" when it was not saved. */
  readonly netns: string;
}

const elementSchema = object({
  Bytes: required(string()),
  Name: string(),
  ifnameRequest: string(),
  attachment: object({
    network: required(string()),
    ifname: required(string()),
    netns: required(string()),
    delegateIfname: required(string()),
    args: required(string()),
    capabilityArgs: required(record(json())),
    defaultRoute: array(addressSchema),
    result: json(),
    refused: boolean(),
    accepted: integer(),
  }),
});

/** The saved delegates of one directory. */
export class SavedDelegates {
  readonly directory: string;
  private readonly cache: DelegateCache;

  constructor(directory: string) {
    this.directory = directory;
    this.cache = new DelegateCache(directory);
  }

  /**
   * Reads the delegates that were saved for an attachment.
   * @param warn is told of those that cannot be used.
   * @returns undefined when nothing is known: never saved, removed, or damaged by a crash.
   * @throws CniError when the file cannot be read.
   */
  load(id: AttachmentId, warn?: (message: string) => void): SavedDelegate[] | undefined {
    const own = this.readUsable(id.containerId, warn).filter(({ of }) => belongsTo(of, id));
    return own.length > 0 ? own : undefined;
  }

  /**
   * Saves an attachment's delegates in place of what was saved for it.
   * @throws CniError when the file cannot be read or written.
   */
  save(id: AttachmentId, netns: string, delegates: readonly Delegate[]): void {
    const [own, others] = this.divide(id);
    const remain = new Set(delegates.map(keyOf));
    const dropped = own.filter((one) => !remain.has(keyOf(one)));
    this.cache.remove(id.containerId, dropped);
    this.write(id.containerId, [...others, ...delegates.map((one) => ({ ...one, of: id, netns }))]);
    this.cache.write(id.containerId, netns, delegates);
  }

  /** Forgets an attachment's delegates. @throws CniError when the file cannot be read, written or removed. */
  remove(id: AttachmentId): void {
    const [own, others] = this.divide(id);
    this.cache.remove(id.containerId, own);
    this.write(id.containerId, others);
  }

  /** Adds to delegates that are not saved what the cache still has of their results. */
  recall({ containerId }: AttachmentId, delegates: readonly Delegate[]): Delegate[] {
    return delegates.map((one) => ({ ...one, result: this.cache.read(containerId, one).result }));
  }

  /** Forgets the results of such delegates. @throws CniError when one cannot be removed. */
  forget({ containerId }: AttachmentId, delegates: readonly Delegate[]): void {
    this.cache.remove(containerId, delegates);
  }

  /** What is saved for an attachment, and what is saved for others of the same container. */
  private divide(id: AttachmentId): [own: SavedDelegate[], others: SavedDelegate[]] {
    const all = Object.groupBy(this.readUsable(id.containerId), ({ of }) =>
      belongsTo(of, id) ? 'own' : 'others',
    );
    return [all.own ?? [], all.others ?? []];
  }

  /** Removes unfinished files that killed processes have left. */
  removeUnfinished(): void {
    removeUnfinished(this.directory, isValidName);
  }

  /**
   * Removes results of containers for which nothing is saved, and which are gone.
   * @param isValid whether a container exists all the same.
   * @throws CniError when a file cannot be removed.
   */
  collectResults(isValid: (containerId: string) => boolean): void {
    // An ADD saves before it caches, so what is saved is looked up afterwards.
    this.cache.collect((id) => isValid(id) || existsSync(join(this.directory, id)));
  }

  /**
   * IDs of the containers for which something is saved.
   * @param list how to list the directory. @throws CniError as that does.
   */
  containers(list = listStateFiles): string[] {
    // The result cache is a directory beside them.
    return list(this.directory).filter((name) => isValidName(name) && name !== 'results');
  }

  /**
   * Reads all that is saved for a container.
   * @returns undefined when there is nothing.
   * @throws Error when it cannot be read.
   */
  read(containerId: string): SavedDelegate[] | undefined {
    const text = readStateFile(join(this.directory, containerId));
    if (text === undefined) return undefined;
    const elements = decode(array(elementSchema), parseJson(text), 'delegates');
    return elements.map((element, i) => this.fromElement(containerId, element, i));
  }

  /**
   * Reads what is usable of what is saved for a container. What is damaged counts as missing: DEL then goes
   * by the current configuration.
   * @param warn is told of what cannot be used.
   * @throws CniError when the file cannot be read, as something is saved nevertheless.
   */
  readUsable(containerId: string, warn: (message: string) => void = () => {}): SavedDelegate[] {
    const file = join(this.directory, containerId);
    const attempt = <T>(what: string, decode: () => T): T[] => {
      try {
        return [decode()];
      } catch (error) {
        warn(`${what} "${file}" is passed over, as it cannot be used: ${(error as Error).message}`);
        return [];
      }
    };
    const text = readStateFile(file);
    if (text === undefined) return [];
    const [elements = []] = attempt('What is saved in', () => decode(array(json()), parseJson(text)));
    return elements.flatMap((value, i) =>
      attempt(`Network ${i + 1} of those saved in`, () =>
        this.fromElement(containerId, decode(elementSchema, value), i),
      ),
    );
  }

  private write(containerId: string, delegates: readonly SavedDelegate[]): void {
    const file = join(this.directory, containerId);
    if (delegates.length === 0) removeStateFile(file);
    else writeStateFile(file, JSON.stringify(delegates.map(toElement)));
  }

  private fromElement(
    containerId: string,
    { Bytes, Name, ifnameRequest, attachment }: ReturnType<typeof elementSchema.decode>,
    index: number,
  ): SavedDelegate {
    const bytes = Buffer.from(Bytes, 'base64');
    const network = networkFrom(parseJson(bytes.toString()), bytes, '');
    const ifname = attachment?.delegateIfname ?? (ifnameRequest || (index === 0 ? '' : `net${index}`));
    if (ifname !== '' && ifnameProblem(ifname))
      throw new Error(`Interface "${ifname}" ${ifnameProblem(ifname)}`);
    const named = { network, label: Name || network.name, ifname };
    if (!attachment) return { ...named, ...this.cache.read(containerId, named), of: undefined };
    const { result, defaultRoute, netns, args, capabilityArgs, refused, accepted } = attachment;
    return {
      ...{ ...named, args, capabilityArgs, defaultRoute, netns },
      of: { containerId, network: attachment.network, ifname: attachment.ifname },
      result: isObject(result) ? parseResult(result, newestVersion) : undefined,
      ...(refused && { isRefused: true, accepted }),
    };
  }
}

/** Tells the delegates of a container apart. */
function keyOf({ network, ifname }: Delegate): string {
  return `${network.name} ${ifname}`;
}

function toElement(one: SavedDelegate): object {
  const { network, label, ifname, args, capabilityArgs, defaultRoute, result, of, netns } = one;
  const { name, cniVersion, disableCheck, disableGC, plugins } = network;
  const list = { cniVersion, name, disableCheck, disableGC, plugins: plugins.map(({ config }) => config) };
  return {
    // Multus takes "Bytes" for a list only if there are plugins here, of which it needs only the types.
    ConfList: { cniVersion, name, plugins: plugins.map(({ type }) => ({ type })) },
    Name: label,
    ifnameRequest: ifname,
    Bytes: Buffer.from(JSON.stringify(list)).toString('base64'),
    ...(of && {
      attachment: {
        ...{ network: of.network, ifname: of.ifname, netns, delegateIfname: ifname, args, capabilityArgs },
        defaultRoute,
        result: result && JSON.parse(formatResult(result, newestVersion)),
        ...(one.isRefused && { refused: true, accepted: one.accepted }),
      },
    }),
  };
}

/** What Multus saved belongs to whatever attachment the container has. */
function belongsTo(of: AttachmentId | undefined, { network, ifname }: AttachmentId): boolean {
  return !of || (of.network === network && of.ifname === ifname);
}

/** Multus saves no interface for the first delegate: it is the attachment's. */
export function withIfname<D extends Delegate>(one: D, ifname: string): D {
  return one.ifname === '' ? { ...one, ifname } : one;
}
