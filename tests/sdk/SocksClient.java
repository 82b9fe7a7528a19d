import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import javax.net.ssl.SSLSocketFactory;

/** Calls Stripe over a socket of its own, as programs do that know nothing of proxies: the JDK tunnels it through SOCKS. */
public final class SocksClient {
    public static void main(String[] arguments) throws Exception {
        try (Socket socket = SSLSocketFactory.getDefault().createSocket("api.stripe.com", 443)) {
            OutputStream out = socket.getOutputStream();
            String request = "GET /v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\nConnection: close\r\n\r\n";
            out.write(request.getBytes(StandardCharsets.US_ASCII));
            BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
            System.out.println("java: " + in.readLine());
        }
    }
}
