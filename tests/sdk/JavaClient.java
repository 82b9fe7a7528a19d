import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Calls Stripe by the JDK's own client, over HTTP/1.1 and HTTP/2. */
public final class JavaClient {
    public static void main(String[] arguments) throws Exception {
        for (HttpClient.Version version : HttpClient.Version.values()) {
            HttpClient client = HttpClient.newBuilder().version(version).build();
            HttpRequest request = HttpRequest.newBuilder(URI.create("https://api.stripe.com/v1/balance")).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200 || answer.version() != version) {
                throw new IllegalStateException(answer + " " + answer.version() + ": " + answer.body());
            }
        }
        System.out.println("java: ok");
    }
}
