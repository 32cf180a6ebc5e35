/** What keeps the addresses of a cluster: etcd, or the Kubernetes API. */

import type { RemoteHolding } from '../../lib/cni/plugin.ts';
import type { Address } from '../../lib/ip.ts';
import type { Ipam } from './config.ts';
import type { Holding, Owner } from './keys.ts';
import type { Pool } from './pools.ts';

/** The attachment of a call, and what it is configured with. */
export interface Setting {
  readonly ipam: Ipam;
  readonly owner: Owner;
  /** Whom addresses in quarantine go back to; "" for nobody. */
  readonly identity: string;
  /** Namespace and name of the pod, as in "default/web"; "" when the runtime does not tell them. */
  readonly podref: string;
}

/** A pool to take an address from. */
export interface Source {
  readonly pool: Pool;
  /** The only address that will do; undefined for any. */
  readonly wanted: Address | undefined;
}

/** What is known about an attachment that is to be released. */
export interface Release {
  readonly owner: Owner;
  /** What it probably has in etcd, which saves asking for it; undefined when nothing is known. */
  readonly guess: Holding | undefined;
  /** How long its addresses go to no other pod, in seconds. */
  readonly quarantine: number;
  /** What may name its container: keys of lists in etcd (legacy.ts), or pools of the Kubernetes API. */
  readonly lists: readonly string[];
  /** The {@link Backend.cluster} in which it could not be released; undefined when it was not tried. */
  readonly cluster?: string | undefined;
}

/** Keeps addresses for all nodes. Every method throws CniError TryAgainLater while it cannot be reached. */
export interface Backend {
  /** For messages, as in "etcd". */
  readonly name: string;
  /** Where releases of the network wait on this node. */
  readonly directory: string;
  /** Identifies the cluster by how it is found: its members, or the path of the kubeconfig. */
  readonly cluster: string;
  /** The pools from which containers get addresses, in order. @throws Error that says what is wrong. */
  pools(): Promise<readonly Pool[]>;
  /**
   * Gives the attachment an address of each source, or those that it has already.
   * @param onUncertain is called when the attachment, which had none, may get addresses that the backend does
   *   not take back if it fails, as when an answer is lost.
   * @returns an address for each source; whether they are new.
   * @throws Error when there is none.
   */
  allocate(
    sources: readonly Source[],
    onUncertain: () => void,
  ): Promise<{ addresses: Address[]; isNew: boolean }>;
  /** How the attachment is released. @param addresses those in the result of ADD, if that is known. */
  releaseOf(addresses: readonly Address[] | undefined): Release;
  /**
   * Gives back all that an attachment has, and nothing of anybody else's. It may be repeated.
   * @param warn is told what an operator should know.
   */
  release(one: Release, warn?: (message: string) => void): Promise<void>;
  /** @param addresses of the result of ADD. @throws Error when they are not the attachment's. */
  check(addresses: readonly Address[]): Promise<void>;
  /** Makes a request that succeeds only if the backend can give addresses away. */
  probe(): Promise<void>;
  /**
   * Releases attachments of the network on this node that are not valid, and goes on after one that cannot be
   * released.
   * @param warn is told what an operator should know. @throws the first error, at the end.
   */
  collect(isValid: (owner: Owner) => boolean, warn: (message: string) => void): Promise<void>;
  /** Recognizes errors after which there is no use in asking for anything else. */
  readonly isFinal: (error: unknown) => boolean;
  /** Announces that the node is alive. */
  announce(): Promise<void>;
  /**
   * What the setting's node, which is gone, has left in the network.
   * @param isThisNode whether it is this one, so that only what other hosts of that name have left counts.
   * @throws NodePresentError when it is alive and nothing is left.
   */
  leftBehind(isThisNode: boolean): Promise<RemoteHolding[]>;
  /** Counts the addresses of a pool that cannot be given away now. */
  countUsed(pool: Pool): Promise<number>;
}

/**
 * Does something with each, and goes on after one that failed, unless nobody answers.
 * @param isFinal recognizes errors after which there is no use in going on.
 * @throws the first error, at the end; @param warn is told further ones.
 */
export async function eachInSpite<T>(
  all: Iterable<T> | AsyncIterable<T>,
  work: (one: T) => Promise<void> | void,
  { isFinal, warn }: { isFinal: (error: unknown) => boolean; warn: (message: string) => void },
): Promise<void> {
  const errors: unknown[] = [];
  try {
    for await (const one of all)
      try {
        await work(one);
      } catch (error) {
        errors.push(error);
        if (isFinal(error)) break;
      }
  } catch (error) {
    // What comes next could not be read.
    errors.push(error);
  }
  for (const error of errors.slice(1)) warn((error as Error).message);
  if (errors.length > 0) throw errors[0];
}

/** The error of CHECK for an address that an attachment does not have. */
export function notReserved(address: Address | undefined, { containerId, ifname }: Owner): Error {
  return new Error(
    `${address ?? 'An address'} is not reserved for container "${containerId}" and interface "${ifname}". Delete the container and add it again`,
  );
}

/** The error of CHECK for an address that somebody else has. */
export function reservedForOther(address: Address, { containerId }: Owner): Error {
  return new Error(
    `Address ${address} of container "${containerId}" is reserved for somebody else. Delete the container and add it again`,
  );
}

/** The error of ADD for an address that somebody else has. */
export function alreadyReserved(wanted: Address): Error {
  return new Error(
    `The requested address ${wanted} is reserved already. Ask for another one, or release it first`,
  );
}

/** The error of ADD for a pool that is used up. @param range as in "10.1.0.1-10.1.0.254". */
export function nothingFree(range: string, { network }: Owner): Error {
  return new Error(
    `No address is free in ${range} of network "${network}". Delete containers, collect stale reservations with GC, or add a range to the configuration`,
  );
}

/** The error of ADD for an attachment that has other addresses than are asked for. */
export function otherAddresses({ containerId, ifname }: Owner, addresses: readonly Address[]): Error {
  return new Error(
    `Container "${containerId}" already has ${addresses.join(' and ') || 'a reservation'} for interface "${ifname}", and not what the configuration asks for. Run DEL for it first, or GC if it no longer exists`,
  );
}
