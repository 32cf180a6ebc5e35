/** A netlink socket: requests out, acknowledgements and dumps back. Sources: netlink(7), linux/netlink.h. */

import { closeSync, write } from 'node:fs';
import { NetlinkError, readError } from './error.ts';
import { isKernelError, KernelError, libc } from './libc.ts';
import {
  Control,
  concat,
  decodeMessages,
  encodeMessage,
  Flag,
  headerSize,
  type Message,
  type Request,
} from './message.ts';
import { makeRoomToSend, openSocket, receiveFromKernel } from './socket-options.ts';

const MSG_DONTWAIT = 0x40;
const ETIMEDOUT = 110;
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;

/** Protocol numbers of linux/netlink.h. */
export const NetlinkProtocol = { Route: 0, Netfilter: 12 } as const;

/** How often a list is read at most. */
const dumpTries = 5;
/** How often the kernel is asked for an answer when memory is short. */
const receiveTries = 5;
/**
 * How many requests are sent at once: the kernel drops answers that the socket has no room for, and the usual
 * 208 KiB are enough for the answers to some 40 requests even if each comes with an object.
 */
const requestsAtOnce = 32;
/** Links with many attributes come in messages of up to 32 KiB (NLMSG_GOODSIZE on the dump side). */
const receiveSize = 64 * 1024;
/** Shared by all sockets: what was received is copied or read before any other code can run. */
const buffer = new Uint8Array(receiveSize);

/** What is given each message of a list. */
type Visitor = (data: Buffer, from: number, to: number) => void;

/** A socket bound to the network namespace that the thread was in when it was opened. */
export class NetlinkSocket {
  private readonly fd: number;
  private sequence = 0;

  /**
   * @param protocol one of {@link NetlinkProtocol}.
   * @param options.groups bit mask of the multicast groups whose reports to receive.
   * @throws KernelError
   */
  constructor(protocol: number, { groups = 0 }: { groups?: number } = {}) {
    this.fd = openSocket(protocol, groups);
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Sends requests together and waits for all their acknowledgements. The kernel carries out every one, in
   * order, even after one failed.
   * @returns for each request, the messages that the kernel sent besides the acknowledgement.
   * @throws NetlinkError for the first request that failed.
   */
  execute(...requests: Request[]): Message[][] {
    const errors = this.attempt(...requests);
    const failed = errors.find((outcome) => outcome instanceof NetlinkError);
    if (failed) throw failed;
    return errors as Message[][];
  }

  /** Like {@link execute}, but returns the errors in place of the replies for the requests that failed. */
  attempt(...requests: Request[]): (Message[] | NetlinkError)[] {
    const outcomes: (Message[] | NetlinkError)[] = [];
    for (let i = 0; i < requests.length; i += requestsAtOnce) {
      const some = requests.slice(i, i + requestsAtOnce);
      const first = this.number(some);
      this.send(some.map((request, j) => encodeMessage(request, first + j, Flag.Ack)));
      outcomes.push(...this.collect(some, first, i));
    }
    return outcomes;
  }

  /**
   * Like {@link execute} for a request that the kernel takes long over, such as 20 ms to delete an interface:
   * another thread waits for it, and the socket must not be used meanwhile.
   */
  async executeInThreadPool(request: Request): Promise<Message[]> {
    const first = this.number([request]);
    const data = encodeMessage(request, first, Flag.Ack);
    await new Promise<void>((resolve, reject) => {
      write(this.fd, data, (error) => {
        if (error) reject(new KernelError(request.action, -error.errno!));
        else resolve();
      });
    });
    const [outcome] = this.collect([request], first);
    if (outcome instanceof NetlinkError) throw outcome;
    return outcome!;
  }

  /** Takes sequence numbers. @returns the first one. */
  private number(requests: readonly Request[]): number {
    const first = this.sequence + 1;
    this.sequence += requests.length;
    return first;
  }

  /**
   * @param first sequence number of the first request.
   * @param before how many requests of the same call were sent earlier.
   */
  private collect(requests: readonly Request[], first: number, before = 0): (Message[] | NetlinkError)[] {
    const outcomes: (Message[] | NetlinkError)[] = requests.map(() => []);
    for (let open = requests.length; open > 0; ) {
      for (const message of this.receive()) {
        const index = message.sequence - first;
        if (index < 0 || index >= requests.length) continue; // A late answer to an earlier request.
        if (message.type === Control.Error) {
          outcomes[index] = readError(message, requests[index]!, before + index) ?? outcomes[index]!;
          open--;
        } else (outcomes[index] as Message[]).push(message);
      }
    }
    return outcomes;
  }

  /**
   * Lists what the kernel has. A list that changed while it was read may lack entries, and is read again.
   * Under steady load, every reading may be interrupted: then the last one counts, or all of them together.
   * @param keyOf tells entries apart, to have all readings count together: what was there all the time is
   *   missing only if it is from each.
   * @throws NetlinkError
   */
  dump(request: Request, keyOf?: (entry: Message) => string): Message[] {
    const readings = this.read(request);
    if (readings.length === 1 || !keyOf) return readings.at(-1)!;
    return [...new Map(readings.flat().map((entry) => [keyOf(entry), entry])).values()];
  }

  /** @returns the first whole reading of a list, or several interrupted ones. */
  private read(request: Request): Message[][] {
    const interrupted: Message[][] = [];
    while (interrupted.length < dumpTries) {
      const messages: Message[] = [];
      const isWhole = this.searchOnce(request, (data, from, to) => {
        messages.push(...decodeMessages(new Uint8Array(data.subarray(from - headerSize, to))));
      });
      if (isWhole) return [messages];
      interrupted.push(messages);
    }
    return interrupted;
  }

  /**
   * Like {@link dump} for a list that is searched rather than read: no objects are made of the messages,
   * which is what takes time in a process that has just started.
   * @param visit is given each message's payload within the received data: from one offset up to another. It
   *   sees messages again when the list changed while it was read, and is searched again.
   * @throws NetlinkError
   */
  search(request: Request, visit: Visitor): void {
    for (let left = dumpTries; left > 0 && !this.searchOnce(request, visit); left--);
  }

  /** @returns false when the list changed while it was read. */
  private searchOnce(request: Request, visit: Visitor): boolean {
    const sequence = ++this.sequence;
    this.send([encodeMessage(request, sequence, Flag.Dump)]);
    const data = Buffer.from(buffer.buffer);
    for (let isWhole = true; ; ) {
      const length = this.receiveBytes();
      for (let offset = 0; offset + headerSize <= length; ) {
        const size = data.readUInt32LE(offset);
        const type = data.readUInt16LE(offset + 4);
        if (size < headerSize || offset + size > length)
          throw new RangeError(
            `A netlink message of ${size} bytes does not fit the ${length - offset} received`,
          );
        if (data.readUInt32LE(offset + 8) === sequence) {
          if (data.readUInt16LE(offset + 6) & Flag.DumpInterrupted) isWhole = false;
          if (type === Control.Done || type === Control.Error) {
            const [last] = decodeMessages(buffer.slice(offset, offset + size));
            const error = readError(last!, request, 0);
            if (error) throw error;
            return isWhole;
          }
          visit(data, offset + headerSize, offset + size);
        }
        offset += (size + 3) & ~3;
      }
    }
  }

  /**
   * Sends requests as one batch, which the kernel carries out whole or not at all.
   * @param subsystem of nfnetlink that the batch is for.
   * @param condition attributes that say when the kernel refuses the batch.
   * @throws NetlinkError for the first request that failed, or for the batch.
   */
  transaction(
    subsystem: number,
    requests: readonly Request[],
    condition: Uint8Array = new Uint8Array(),
  ): void {
    const boundary = (type: number, attributes?: Uint8Array): Request => ({
      action: 'begin a transaction of rules',
      type,
      flags: 0,
      payload: concat([
        Uint8Array.of(0, 0, subsystem >> 8, subsystem & 0xff),
        ...(attributes ? [attributes] : []),
      ]),
    });
    const all = [boundary(BATCH_BEGIN, condition), ...requests, boundary(BATCH_END)];
    const begin = this.number(all);
    // Failures are reported in any case, and in order, so that the last request's acknowledgement means that
    // there is none. Acknowledgements of all requests could be more than the socket has room for.
    const last = requests.length;
    this.send(all.map((request, i) => encodeMessage(request, begin + i, i === last ? Flag.Ack : 0)));
    for (;;) {
      for (const message of this.receive()) {
        const index = message.sequence - begin;
        if (message.type !== Control.Error || index < 0 || index > last) continue;
        const error = readError(message, all[index]!, index - 1);
        if (error) {
          // Further failures have arrived already, and are of no interest.
          this.drain();
          throw error;
        }
        if (index === last) return;
      }
    }
  }

  /** Waits for messages. @throws KernelError when none comes in time. */
  private receive(): Message[] {
    const length = this.receiveBytes();
    // A copy: the buffer is used again for the next answer.
    return decodeMessages(buffer.slice(0, length));
  }

  /** Waits for messages, which it leaves in the buffer. @returns how many bytes they have. */
  private receiveBytes(): number {
    for (let tries = 1; ; tries++) {
      try {
        return receiveFromKernel(this.fd, buffer);
      } catch (error) {
        if (isKernelError(error, 'EAGAIN')) throw new KernelError('read the answer of the kernel', ETIMEDOUT);
        // The request was carried out, and its outcome must be known: the answer can still be read.
        if (tries === receiveTries || !isKernelError(error, 'ENOMEM', 'ENOBUFS')) throw error;
      }
    }
  }

  /**
   * Discards what has arrived at the socket, such as reports that it listens to, without waiting.
   * @returns whether there was anything.
   */
  drain(): boolean {
    for (let some = false; ; some = true) {
      try {
        libc('read a report of the kernel', 'recv', this.fd, buffer, receiveSize, MSG_DONTWAIT);
      } catch (error) {
        if (isKernelError(error, 'EAGAIN')) return some;
        // More has arrived than the socket holds.
        if (!isKernelError(error, 'ENOBUFS')) throw error;
      }
    }
  }

  private send(messages: Uint8Array[]): void {
    const data = concat(messages);
    const send = () => libc('send a request to the kernel', 'send', this.fd, data, data.length, 0);
    try {
      send();
    } catch (error) {
      if (!isKernelError(error, 'EMSGSIZE')) throw error;
      makeRoomToSend(this.fd, data.length);
      send();
    }
  }
}
