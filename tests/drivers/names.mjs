// Plays the part of DNS and of port 443, loaded before an application with `node --import`: connections to port 443 of names
// below `.gw.test` go to the gateway's port on 127.0.0.1. What is said over them, the server's name in the handshake and the
// check of its certificate are as they would be.

import net from 'node:net';

const port = Number(process.env.GATEWAY_PORT);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
    // Called by users with options, within Node with a list that has them first.
    const options = Array.isArray(args[0]) ? args[0][0] : args[0];
    if (options?.host?.endsWith('.gw.test') && Number(options.port) === 443) Object.assign(options, { host: '127.0.0.1', port });
    return connect.apply(this, args);
};
