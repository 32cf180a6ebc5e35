/** What comes before Services: names, and a proxy that is published by host ports, as an Ingress controller is. */

import test from 'ava';
import {
  type Attachment,
  type AttachOptions,
  attach,
  type Conflist,
  type PluginConf,
} from '../support/chain.ts';
import { type Host, makeHost, type Namespace } from '../support/host.ts';
import type { Cluster, Service } from '../support/kube-proxy/service.ts';
import { type ProxyMode, proxyModes, proxyServices } from '../support/kube-proxy.ts';
import { makeCertificate, startNginx } from '../support/nginx.ts';
import { askAll, dig, serve } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { ports } from '../support/portmap.ts';

const cluster: Cluster = { family: 4, podCIDR: '10.31.0.0/24', serviceCIDR: '10.96.0.0/16' };

/** A bridge, and what comes after it. */
const network = (...plugins: PluginConf[]): Conflist => ({
  cniVersion: '1.1.0',
  name: 'names',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      isDefaultGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]] },
    },
    ...plugins,
  ],
});

/** A host on which the firewall sees the packets of bridges. */
async function makeServiceHost(t: Parameters<typeof makeHost>[0]): Promise<Host> {
  const host = await makeHost(t);
  const write = 'echo 1 | tee bridge-nf-call-iptables bridge-nf-call-ip6tables';
  await host.run(['sh', '-c', `cd /proc/sys/net/bridge && ${write}`]);
  return host;
}

/** The rules of kube-proxy, as they are. */
async function rulesOfProxy(host: Host, mode: ProxyMode): Promise<string[]> {
  const text = await host.run(
    mode === 'nftables' ? ['nft', '--stateless', 'list', 'table', 'ip', 'kube-proxy'] : ['iptables-save'],
  );
  return text.split('\n').filter((line) => mode === 'nftables' || /^[-:].*KUBE-/.test(line));
}

for (const mode of proxyModes) {
  test(`a proxy behind host ports leads to Services by host name and path, with TLS, in ${mode} mode`, async (t) => {
    const host = await makeServiceHost(t);
    const outside = await outsideOf(host);
    await outside.run(['ip', 'route', 'add', 'default', 'via', '192.0.2.1']);
    const plugins = network({ type: 'portmap', capabilities: { portMappings: true } });
    const names = ['shop', 'blog'];
    const services: Service[] = [];
    for (const [i, name] of names.entries()) {
      const backend = await attach(host, plugins);
      const answer = `return 200 "${name} $uri from $remote_addr for $http_x_forwarded_for\\n";`;
      await startNginx(t, host, backend.pod, `server { listen 80; location / { ${answer} } }`);
      const endpoints = [{ ip: backend.ip, port: 80 }];
      services.push({ name: `default/${name}`, clusterIP: `10.96.0.${i + 1}`, port: 8000, endpoints });
    }
    await proxyServices(host, mode, cluster, services);
    const rules = await rulesOfProxy(host, mode);

    const proxy = await attach(host, plugins, ports([80, 80], [443, 443]));
    await startNginx(t, host, proxy.pod, await ingressOf(host));
    const fetch = async (from: Namespace, url: string, name: string, address = '192.0.2.1') => {
      const { exit, stdout, stderr } = await from.tryRun([
        ...['curl', '--silent', '--show-error', '--max-time', '20', '--cacert', `/run/${name}.crt`],
        ...['--resolve', `*:80:${address}`, '--resolve', `*:443:${address}`, url],
      ]);
      return exit === 0 ? stdout.trim() : stderr;
    };
    const forOutside = (what: string) => `${what} from ${proxy.ip} for 192.0.2.2`;
    for (const scheme of ['http', 'https']) {
      t.is(await fetch(outside, `${scheme}://shop.example/cart`, 'shop.example'), forOutside('shop /cart'));
      t.is(await fetch(outside, `${scheme}://blog.example/`, 'blog.example'), forOutside('blog /'));
      t.is(await fetch(outside, `${scheme}://shop.example/blog/1`, 'shop.example'), forOutside('blog /1'));
    }
    t.regex(await fetch(outside, 'https://shop.example/', 'blog.example'), /certificate/);
    t.regex(await fetch(outside, 'http://other.example/', 'shop.example'), /404/);
    t.regex(
      await fetch(outside, 'https://shop.example/', 'shop.example', '[fd00:2::1]'),
      /^shop .* for fd00:2::2$/,
    );
    for (const from of [host, (await attach(host, plugins)).pod, proxy.pod])
      t.regex(await fetch(from, 'https://shop.example/cart', 'shop.example'), /^shop \/cart /);

    await proxy.del();
    t.regex(await fetch(outside, 'http://shop.example/', 'shop.example'), /Failed to connect/);
    t.deepEqual(await rulesOfProxy(host, mode), rules);
  });

  test(`a headless Service is all of its pods, by the name server's Service, in ${mode} mode`, async (t) => {
    const host = await makeServiceHost(t);
    const plugins = network({ type: 'dnsname', domainName: 'cluster.local' });
    const of = (name: string): AttachOptions => ({
      args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${name}`,
    });
    const inSubdomain: Conflist = {
      ...plugins,
      plugins: plugins.plugins.map((plugin) =>
        plugin.type === 'dnsname' ? { ...plugin, args: { cni: { subdomain: 'db' } } } : plugin,
      ),
    };
    const attached: Attachment[] = [];
    // With the last pod, the name server ends.
    t.teardown(async () => {
      for (const one of attached) await one.del();
    });
    for (const name of ['db-0', 'db-1', 'client'])
      attached.push(await attach(host, name === 'client' ? plugins : inSubdomain, of(name)));
    const [first, second, client] = attached as [Attachment, Attachment, Attachment];
    for (const { pod } of [first, second]) await serve(t, pod, 'tcp', 5432, pod.containerId);
    const nameServer = { clusterIP: '10.96.0.10', port: 53, endpoints: [{ ip: '10.31.0.1', port: 53 }] };
    await proxyServices(host, mode, cluster, [
      { name: 'kube-system/kube-dns', protocol: 'udp', ...nameServer },
      { name: 'kube-system/kube-dns', protocol: 'tcp', ...nameServer },
    ]);

    const lookUp = (...options: string[]) =>
      dig(client.pod, '10.96.0.10', 'db.shop.svc.cluster.local', ...options);
    const found = await lookUp();
    t.deepEqual(found, [first.ip, second.ip]);
    t.deepEqual(await lookUp('+tcp'), found);
    const answers = await askAll(
      client.pod,
      [...found, ...(await lookUp('AAAA'))].map((ip) => [ip, 5432] as const),
    );
    const seen = ['10.31.0.4', 'fd00:31::4'].flatMap((peer) =>
      [first, second].map(({ pod }) => ({ label: pod.containerId, peer, said: 'hello' })),
    );
    t.deepEqual(answers, seen);
    await first.del();
    t.deepEqual(await lookUp(), [second.ip]);
  });
}

/** The proxy's configuration: shop.example and blog.example by name, and one below the other by path. */
async function ingressOf(host: Host): Promise<string> {
  const to = (ip: string, path = '') =>
    `proxy_pass http://${ip}:8000${path}; proxy_set_header X-Forwarded-For $remote_addr;`;
  const server = async (name: string, locations: string) => {
    const { certificate, key } = await makeCertificate(host, name);
    const listen = 'listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;';
    const tls = `ssl_certificate ${certificate}; ssl_certificate_key ${key};`;
    return `server { server_name ${name}; ${listen} ${tls} ${locations} }`;
  };
  return [
    'server { listen 80 default_server; listen [::]:80 default_server; return 404; }',
    await server(
      'shop.example',
      `location / { ${to('10.96.0.1')} } location /blog/ { ${to('10.96.0.2', '/')} }`,
    ),
    await server('blog.example', `location / { ${to('10.96.0.2')} }`),
  ].join('\n');
}
