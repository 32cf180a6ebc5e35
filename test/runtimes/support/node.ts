/**
 * A node for a real container runtime: a test's host, with process IDs of its own, so that whatever a runtime
 * leaves running ends with the test, and with the control groups that runc wants. Its /run is in memory:
 * sockets, images, containers and plugin configurations all go there.
 */

import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { Host, makeHost, randomName, type Teardown } from '../../support/host.ts';
import { suites } from '../../support/plugin.ts';
import { run } from '../../support/run.ts';
import { makeImage } from './image.ts';

/** Name of the image whose web server answers {@link greeting} on port 80. */
export const webImage = 'localhost/web:latest';
export const greeting = 'hello from a container';

/** Where the runtimes find the plugins. */
export const pluginDir = suites.ours;

export class Node extends Host {
  override readonly enter: readonly string[];
  /** The parent of the containers' control groups. */
  readonly cgroup: string;

  constructor(pid: number, cgroup: string) {
    super(pid);
    this.cgroup = cgroup;
    this.enter = [
      'nsenter',
      `--net=/proc/${pid}/ns/net`,
      `--mount=/proc/${pid}/ns/mnt`,
      `--pid=/proc/${pid}/ns/pid_for_children`,
      '--',
    ];
  }

  /** Writes a file of the node. @param content a string as it is, anything else as JSON. */
  write(path: string, content: string | object): void {
    mkdirSync(dirname(this.file(path)), { recursive: true });
    const text = typeof content === 'string' ? content : JSON.stringify(content, null, 2);
    writeFileSync(this.file(path), text);
  }

  /** What the web server at an address says, or undefined when nobody answers within half a minute. */
  async browse(address: string, port = 80): Promise<string | undefined> {
    const host = address.includes(':') ? `[${address}]` : address;
    const argv = ['curl', '--silent', '--fail', '--max-time', '5', `http://${host}:${port}/`];
    for (const deadline = Date.now() + 30_000; Date.now() < deadline; ) {
      const output = await this.tryRun(argv);
      if (output.exit === 0) return output.stdout.trim();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return undefined;
  }
}

/**
 * Makes a node with the web image in /run/web.tar; it forwards packets, as the node of a cluster is set up
 * to.
 */
export async function makeNode(t: Teardown): Promise<Node> {
  const host = await makeHost(t);
  const script = `set -e
    ${uncoverCgroups}
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    echo ready
    cat > /dev/null; exit # not exec: the shell, process 1 here, collects the processes whose parents have ended`;
  const cgroup = `/cni-test-${randomName()}`;
  t.teardown(() => removeCgroups(cgroup));
  const init = await host.start(t, [
    ...['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'],
    ...['sh', '-c', script],
  ]);
  // Unlike a kill, this returns when every process of the node has ended.
  t.teardown(async () => {
    const ended = once(init, 'exit');
    init.stdin!.end();
    await ended;
  });
  const node = new Node(init.pid!, cgroup);
  await makeImage(node, '/run/web.tar', webImage, ['/bin/httpd', '-f', '-p', '80', '-h', '/www'], {
    'www/index.html': `${greeting}\n`,
  });
  return node;
}

/**
 * For a shell in a mount namespace of its own: uncovers the machine's /sys below the host's, as only that has
 * the control groups.
 */
const uncoverCgroups = 'until [ "$(ls /sys/fs/cgroup)" ]; do umount /sys; done';

/** Control groups outlive their processes. Those of other tests may vanish while they are looked through. */
async function removeCgroups(cgroup: string): Promise<void> {
  const script = `set -e
    ${uncoverCgroups}
    for own in $(find /sys/fs/cgroup -type d -path "*$1" -prune -print 2>/dev/null || true); do
      find $own -depth -type d -exec rmdir {} +
    done`;
  await run(['unshare', '--mount', 'sh', '-c', script, 'sh', cgroup]);
}
