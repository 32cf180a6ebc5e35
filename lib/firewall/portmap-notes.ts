/**
 * What portmap remembers about a container on a network, in a file: its sandbox, which tells whether the
 * holder of a port still exists, and the UDP ports of each of its interfaces, whose tracked connections must
 * be forgotten even if the call that removed the rules did not get that far.
 */

import type { AttachmentId } from '../attachment.ts';
import { Address } from '../ip.ts';
import type { StalePort } from '../kernel/conntrack.ts';
import { areNetnsGone } from '../kernel/netns.ts';
import { isObject } from '../object.ts';
import { cachedResults } from '../result-cache.ts';
import {
  listStateFiles,
  readStateFile,
  removeUnfinished,
  unlinkStateFile,
  writeStateFile,
} from '../state-file.ts';
import { portMapChain } from './names.ts';

const directory = '/run/cni/portmap';

type ContainerId = Pick<AttachmentId, 'network' | 'containerId'>;

/** A UDP port of the host that leads, or has led, to a container. */
export type UdpPort = Pick<StalePort, 'family' | 'port' | 'address'> & { readonly was: Address };

/** An attachment with mappings. */
export interface NotedAttachment extends AttachmentId {
  readonly netns: string;
  readonly ports: readonly UdpPort[];
}

/** Remembers an attachment. @returns a function that restores what was noted about it before. */
export function rememberAttachment(attachment: NotedAttachment): () => void {
  // By then there may be notes of the container's other interfaces.
  const exchange = (own: readonly NotedAttachment[]) => {
    const before = readNote(attachment);
    const isOwn = ({ ifname }: NotedAttachment) => ifname === attachment.ifname;
    writeNote(attachment, [...before.filter((one) => !isOwn(one)), ...own]);
    return before.filter(isOwn);
  };
  try {
    const before = exchange([attachment]);
    return () => void exchange(before);
  } catch {
    return () => {}; // A mapping works without the note.
  }
}

/** The UDP ports that are noted for an attachment. @throws CniError when its note cannot be read. */
export function notedPorts(attachment: AttachmentId): readonly UdpPort[] {
  return readNote(attachment).find(({ ifname }) => ifname === attachment.ifname)?.ports ?? [];
}

/** The attachments of a network that are remembered, as far as their notes can be read. */
export function notedAttachments(network: string): NotedAttachment[] {
  return [...readNotes()].filter((one) => one.network === network);
}

/** Forgets attachments, and what killed processes have left. A note that cannot be removed is left to GC. */
export function forgetAttachments(attachments: readonly AttachmentId[]): void {
  for (const attachment of attachments)
    try {
      const others = readNote(attachment).filter(({ ifname }) => ifname !== attachment.ifname);
      writeNote(attachment, others);
    } catch {
      // It stays.
    }
  removeUnfinished(directory);
}

/** What the rules tell about a holder: the container, but not its sandbox. */
export interface Holder {
  readonly containerId: string;
  /** Tells whether one of the container's attachments is the holder. */
  isOn(attachment: ContainerId): boolean;
}

/**
 * True when a sandbox of the holder is known, from the notes or the runtime's result cache, and all that are
 * known no longer exist.
 */
export function isHolderGone({ containerId, isOn }: Holder): boolean {
  const noted = [...readNotes()].filter((one) => one.containerId && isOn(one)).map(({ netns }) => netns);
  const cached = [...cachedResults((name) => name.includes(containerId))]
    .filter((one) => one.containerId && isOn(one))
    .flatMap(({ sandboxes }) => sandboxes);
  return areNetnsGone([...noted, ...cached]);
}

/** Every attachment that is remembered. A note that is damaged, foreign, gone or unreadable is skipped. */
function* readNotes(): Generator<NotedAttachment> {
  for (const name of tryTo(() => listStateFiles(directory)) ?? []) {
    const attachments = parse(tryTo(() => readStateFile(`${directory}/${name}`)));
    if (attachments[0] && name === nameOf(attachments[0])) yield* attachments;
  }
}

function tryTo<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** The attachments of one container to one network. @throws CniError when the note cannot be read. */
function readNote(container: ContainerId): NotedAttachment[] {
  return parse(readStateFile(fileOf(container)));
}

/** @throws CniError when the note can be neither written nor removed. */
function writeNote(container: ContainerId, attachments: readonly NotedAttachment[]): void {
  const [first] = attachments;
  if (!first) {
    unlinkStateFile(fileOf(container));
    return;
  }
  const { network, containerId, ifname, netns } = first;
  const udp = Object.fromEntries(attachments.map((one) => [one.ifname, one.ports]));
  writeStateFile(fileOf(container), JSON.stringify({ network, containerId, ifname, netns, udp }));
}

function parse(text: string | undefined): NotedAttachment[] {
  const note: unknown = tryTo(() => JSON.parse(text ?? ''));
  if (!isObject(note)) return [];
  const { network, containerId, netns, ifname } = note;
  if (typeof network !== 'string' || typeof containerId !== 'string' || typeof netns !== 'string') return [];
  // Notes of earlier releases have one interface, and no ports.
  const udp = isObject(note.udp) ? note.udp : { [String(ifname)]: [] };
  return Object.entries(udp).map(([key, ports]) => ({
    ...{ network, containerId, ifname: key, netns },
    ports: Array.isArray(ports) ? ports.flatMap((port) => readPort(port) ?? []) : [],
  }));
}

function readPort(value: unknown): UdpPort | undefined {
  if (!isObject(value)) return undefined;
  const { port, address, was } = value;
  const container = typeof was === 'string' ? Address.tryParse(was) : undefined;
  if (!container || typeof port !== 'number') return undefined;
  const host = typeof address === 'string' ? Address.tryParse(address) : undefined;
  return { family: container.family, port, address: host, was: container };
}

function fileOf(container: ContainerId): string {
  return `${directory}/${nameOf(container)}`;
}

function nameOf(container: ContainerId): string {
  return `${portMapChain(container)}.json`;
}
