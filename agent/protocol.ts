/**
 * What launcher and agent say to each other over a Unix socket.
 *
 *     launcher   build, mount namespace, network namespace, name, environment variables:
 *                each ended by NUL, then an empty one
 *     agent      "Y" if the call is its own, or nothing at all
 *     launcher   standard input: pieces behind their length (32 bits, little-endian), then a length of 0
 *     agent      frames of type, exit code and length, then that much data: "E" standard error; "H" nothing
 *                but a sign of life; "R" standard output, with which the call ends
 *     launcher   "A" once standard output has been written
 *
 * Times. Each side gives the other up after a while:
 *
 *     ACCEPT_TIMEOUT   launcher/agent.c   5 s    the launcher waits for "Y", and to send more of the input.
 *                                                Then the executable does the call. Short, as each call pays
 *                                                it while an agent hangs; not so short that a busy host
 *                                                whose agent is late has executables to start as well.
 *     heartbeatMs      here               3 s    the agent sends an "H"
 *     ALIVE_TIMEOUT    launcher/agent.c   15 s   the launcher waits for the next frame. Then the call has
 *                                                failed. Several times `heartbeatMs`, as a busy host may
 *                                                delay some of these.
 *     patienceMs       here               10 s   the agent waits for an offer, for all of the input, and for
 *                                                "A". Then it does not do the call, or undoes an ADD.
 */

/** How often a launcher is told that its call goes on, in milliseconds. */
export const heartbeatMs = 3000;
/**
 * How long a launcher may take to offer a call, to send its input, and to acknowledge the result, in
 * milliseconds.
 */
export const patienceMs = 10_000;

/** A call, and who makes it. */
export interface Offer {
  /** Digest of the installed tree that the launcher belongs to. */
  readonly build: string;
  /** Device and inode of the caller's mount namespace, as in "4:4026531841". */
  readonly mountNamespace: string;
  readonly networkNamespace: string;
  /** Name of the plugin. */
  readonly name: string;
  /** All of the launcher's environment: for the call and its delegates, never for the agent itself. */
  readonly environment: Readonly<Record<string, string>>;
}

/** More than a launcher sends; one with a larger environment does not ask. */
const longestOffer = 256 * 1024;
/** Far above any network configuration. A launcher with more leaves the call to the executable. */
const longestInput = 16 * 1024 * 1024;

/** In place of a plugin's name, asks the agent for its statistics. No plugin can have that name. */
export const statusRequest = '@status';

/** The answer that a call is the agent's own. */
export const accepted = 'Y';

/** What has arrived on a connection so far, taken off the front. */
export class Incoming {
  /** What has arrived and was not taken. */
  private bytes: Buffer = Buffer.alloc(0);
  /** Holds the bytes, with room behind them: what comes byte by byte is not copied each time. */
  private memory: Buffer = this.bytes;
  /** How many of the bytes are known not to end the offer. */
  private searched = 0;

  add(chunk: Buffer): void {
    const { bytes } = this;
    const from = bytes.byteOffset - this.memory.byteOffset;
    if (from + bytes.length + chunk.length <= this.memory.length) {
      chunk.copy(this.memory, from + bytes.length);
      this.bytes = this.memory.subarray(from, from + bytes.length + chunk.length);
      return;
    }
    this.memory = Buffer.alloc(2 * (bytes.length + chunk.length));
    bytes.copy(this.memory);
    chunk.copy(this.memory, bytes.length);
    this.bytes = this.memory.subarray(0, bytes.length + chunk.length);
  }

  /**
   * @returns undefined until the offer is complete.
   * @throws RangeError when it is too long or lacks a part.
   */
  takeOffer(): Offer | undefined {
    // An empty string ends the list: two NULs in a row.
    const end = this.bytes.indexOf('\0\0', this.searched);
    if (end < 0) {
      this.searched = Math.max(0, this.bytes.length - 1);
      if (this.bytes.length > longestOffer) throw new RangeError('The offer of a call is too long');
      return undefined;
    }
    const [build, mountNamespace, networkNamespace, name, ...variables] = this.bytes
      .toString('utf8', 0, end)
      .split('\0');
    if (!build || !mountNamespace || !networkNamespace || !name)
      throw new RangeError('The offer of a call is incomplete');
    this.bytes = this.bytes.subarray(end + 2);
    const environment = Object.fromEntries(
      variables.map((variable) => {
        const [key = ''] = variable.split('=', 1);
        return [key, variable.slice(key.length + 1)];
      }),
    );
    return { build, mountNamespace, networkNamespace, name, environment };
  }

  private readonly pieces: Buffer[] = [];
  private size = 0;

  /** @returns undefined until standard input is complete. @throws RangeError when it is too long. */
  takeInput(): string | undefined {
    while (this.bytes.length >= 4) {
      const length = this.bytes.readUInt32LE(0);
      this.size += this.bytes.length >= 4 + length ? length : 0;
      if (length > longestInput || this.size > longestInput)
        throw new RangeError('The network configuration is too long');
      if (this.bytes.length < 4 + length) return undefined;
      this.pieces.push(this.bytes.subarray(4, 4 + length));
      this.bytes = this.bytes.subarray(4 + length);
      if (length === 0) return Buffer.concat(this.pieces).toString('utf8');
    }
    return undefined;
  }

  /** @returns whether the launcher has acknowledged standard output. */
  takeAcknowledgement(): boolean {
    return this.bytes.length > 0 && this.bytes[0] === 'A'.charCodeAt(0);
  }
}

/** Size of what comes before a frame's data, in bytes. */
export const frameHeaderSize = 6;

/** A frame for the launcher. @param exit code of the call, for "R". */
export function encodeFrame(type: 'E' | 'H' | 'R', text = '', exit = 0): Buffer {
  const data = Buffer.from(text);
  const header = Buffer.alloc(frameHeaderSize);
  header.write(type);
  header.writeUInt8(exit, 1);
  header.writeUInt32LE(data.length, 2);
  return Buffer.concat([header, data]);
}
