/**
 * The client's side of DHCP: getting an address, keeping it, giving it back. Source: RFC 2131, section 4.4.
 */

import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import type { Address } from '../../lib/ip.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import { type Grant, isUsable, readGrant } from './grant.ts';
import {
  type Channel,
  type ClientLink,
  hasAddress,
  isInUse,
  openAddressChannel,
  openBroadcastChannel,
  waitFor,
} from './link-socket.ts';
import { type DhcpMessage, decodeMessage, encodeMessage, MessageType, Option, typeOf } from './packet.ts';

/** How a client behaves; times in milliseconds. */
export interface ClientSettings {
  /** Ask servers to answer by broadcast. */
  broadcast: boolean;
  /** Longest pause before a message is sent again. */
  resendMax: number;
  /** When to give up getting an address at all. */
  resendTimeout: number;
}

/** DHCP options that a client sends along. */
export interface ClientOptions {
  /** Option 61. */
  clientId: Uint8Array;
  /** Option 55. */
  request: readonly number[];
  /** Further options. */
  provide: ReadonlyMap<number, Uint8Array>;
}

/** A server says that the client has no right to its address. */
export class AddressLostError extends CniError {
  override readonly name = 'AddressLostError';
}

/** Failed offers after which the network is taken to be out of order. */
const offersAtMost = 3;

/** What a client hopes for that had an address before. */
export interface Attempt {
  /** The address. */
  readonly wanted: Address;
  /** How long servers are asked, in milliseconds. */
  readonly timeout: number;
  /** Gives up earlier. */
  readonly signal: AbortSignal;
}

/**
 * Gets an address that nobody else on the link uses.
 * @param attempt when the client had an address before; a server may grant another one all the same.
 * @throws CniError TryAgainLater when no server answers in time, Internal when what they offer cannot be
 * used.
 */
export async function acquire(
  link: ClientLink,
  options: ClientOptions,
  settings: ClientSettings,
  attempt?: Attempt,
): Promise<Grant> {
  const timeout = attempt?.timeout ?? settings.resendTimeout;
  const signal = attempt?.signal;
  const until = msSinceBoot() + timeout;
  const hoped = new Map(attempt && [[Option.RequestedAddress, attempt.wanted.toBytes()]]);
  const channel = openBroadcastChannel(link);
  try {
    for (let tries = 1; ; tries++) {
      const base = { link, options, settings, transaction: randomInt(2 ** 32 - 1) };
      const discovery = compose(base, MessageType.Discover, hoped);
      const offer = await ask(channel, discovery, [MessageType.Offer], base, until, signal);
      if (!offer) throw noAnswerError(link, timeout);
      const wanted = new Map([
        [Option.RequestedAddress, offer.yourAddress!.toBytes()],
        [Option.ServerIdentifier, offer.options.get(Option.ServerIdentifier)!],
      ]);
      const answer = await ask(
        channel,
        compose(base, MessageType.Request, wanted),
        [MessageType.Ack, MessageType.Nak],
        base,
        until,
        signal,
      );
      if (!answer) throw noAnswerError(link, timeout);
      const refused = typeOf(answer) === MessageType.Nak;
      if (!refused && !(await isInUse(link, answer.yourAddress!))) return readGrant(answer);
      if (!refused) channel.send(encodeMessage(compose(base, MessageType.Decline, wanted)));
      if (tries === offersAtMost)
        throw new CniError(
          ErrorCode.Internal,
          refused
            ? `The DHCP server refused ${offersAtMost} times the address that it had offered. Look at its log`
            : `The DHCP server offered ${offersAtMost} addresses that others on the link use already, the last one ${answer.yourAddress}. Take them out of its range`,
        );
      await sleep(Math.min(1000, settings.resendMax));
    }
  } finally {
    channel.close();
  }
}

/**
 * Asks to keep an address.
 * @param server the one that granted it; any when left out.
 * @param signal gives up earlier.
 * @returns the new grant, or undefined when nobody answers by `until`.
 * @throws AddressLostError when a server says that the address is lost.
 */
export async function renew(
  link: ClientLink,
  grant: Grant,
  options: ClientOptions,
  settings: ClientSettings,
  server: Address | undefined,
  until: number,
  signal: AbortSignal,
): Promise<Grant | undefined> {
  const channel = openOwnChannel(link, grant.address.address, server);
  try {
    const base = {
      link,
      options,
      settings,
      transaction: randomInt(2 ** 32 - 1),
      clientAddress: grant.address.address,
    };
    const answer = await ask(
      channel,
      compose(base, MessageType.Request),
      [MessageType.Ack, MessageType.Nak],
      base,
      until,
      signal,
    );
    if (!answer) return undefined;
    if (typeOf(answer) === MessageType.Nak)
      throw new AddressLostError(
        ErrorCode.Internal,
        `The DHCP server took address ${grant.address.address} back`,
      );
    return readGrant(answer, grant);
  } finally {
    channel.close();
  }
}

/**
 * Gives an address back, and returns once the message has left the interface, which DEL deletes next. Servers
 * do not answer it.
 */
export async function release(
  link: ClientLink,
  grant: Grant,
  options: ClientOptions,
  settings: ClientSettings,
): Promise<void> {
  const { server } = grant;
  const own = grant.address.address;
  const base = { link, options, settings, transaction: randomInt(2 ** 32 - 1), clientAddress: own };
  const to = new Map([[Option.ServerIdentifier, server.toBytes()]]);
  const channel = openOwnChannel(link, own, server);
  try {
    channel.send(encodeMessage(compose(base, MessageType.Release, to)));
    await channel.drain();
  } finally {
    channel.close();
  }
}

/** Speaks from the client's address, to one server or by broadcast. */
function openOwnChannel(link: ClientLink, own: Address, server: Address | undefined): Channel {
  const openFrames = () => openBroadcastChannel(link, own, server);
  // Without the address, as when ADD failed before or the container has moved it, the kernel cannot send.
  if (!server || !hasAddress(link, own)) return openFrames();
  try {
    return unlessRefused(openAddressChannel(link, own, server), openFrames);
  } catch (error) {
    // Another client in the container has the port.
    if (!isKernelError(error, 'EADDRINUSE')) throw error;
    return openFrames();
  }
}

/**
 * A channel that gives way to another once the kernel refuses to send, as the container's own firewall and
 * routes may have it do.
 */
function unlessRefused(first: Channel, openOther: () => Channel): Channel {
  let channel = first;
  return {
    send(message) {
      try {
        channel.send(message);
      } catch (error) {
        const isRefusal = isKernelError(error, 'EPERM', 'EACCES', 'ENETUNREACH', 'EHOSTUNREACH');
        if (channel !== first || !isRefusal) throw error;
        channel = openOther();
        first.close();
        channel.send(message);
      }
    },
    receive: () => channel.receive(),
    drain: () => channel.drain(),
    close: () => channel.close(),
  };
}

interface Conversation {
  link: ClientLink;
  options: ClientOptions;
  settings: ClientSettings;
  transaction: number;
  clientAddress?: Address;
}

function compose(
  { link, options, settings, transaction, clientAddress }: Conversation,
  type: number,
  more: ReadonlyMap<number, Uint8Array> = new Map(),
): DhcpMessage {
  const asks = type === MessageType.Discover || type === MessageType.Request;
  return {
    op: 1,
    transaction,
    broadcast: settings.broadcast,
    ...(clientAddress && { clientAddress }),
    hardwareAddress: link.mac,
    options: new Map([
      [Option.MessageType, Uint8Array.of(type)],
      [Option.ClientIdentifier, options.clientId],
      ...more,
      ...(asks
        ? [[Option.ParameterList, Uint8Array.from(options.request)] as const, ...options.provide]
        : []),
    ]),
  };
}

/** Sends a message, and repeats it after growing pauses until a fitting answer comes. */
async function ask(
  channel: Channel,
  message: DhcpMessage,
  wanted: readonly number[],
  { link, transaction, settings, clientAddress }: Conversation,
  until: number,
  signal?: AbortSignal,
): Promise<DhcpMessage | undefined> {
  const accept = (data: Uint8Array) => {
    const answer = decodeMessage(data);
    const ours =
      answer?.op === 2 &&
      answer.transaction === transaction &&
      answer.hardwareAddress.every((byte, i) => byte === link.mac[i]) &&
      wanted.includes(typeOf(answer));
    return ours && isUsable(answer, clientAddress) ? answer : undefined;
  };
  const bytes = encodeMessage(message);
  // Four quick tries, then slower and slower; at random moments, so that clients do not send in step.
  for (let tries = 0; msSinceBoot() < until && !signal?.aborted; tries++) {
    channel.send(bytes);
    const pause = tries < 4 ? 2000 : Math.min(4000 * 2 ** (tries - 4), settings.resendMax);
    const next = Math.min(until, msSinceBoot() + pause + randomInt(-500, 500));
    const answer = await waitFor(channel, accept, next, signal);
    if (answer) return answer;
  }
  return undefined;
}

/** @param timeout in milliseconds. */
function noAnswerError(link: ClientLink, timeout: number): CniError {
  return new CniError(
    ErrorCode.TryAgainLater,
    `No DHCP server answered on "${link.name}" within ${Math.round(timeout / 1000)} seconds. Check that one serves this network, and that its answers get through`,
  );
}
